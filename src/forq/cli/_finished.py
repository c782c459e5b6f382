"""A run's folder in the place of a checkpoint: what it began from, and what it saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forq.errors import ConfigError
from forq.runs import config as configs


@dataclass(frozen=True, slots=True)
class Finished:
    """Where a run began, and what to load for its result: a checkpoint, and an adapter where it moved some.

    Attributes:
        start: the adapter that the run went on from.
    """

    base: str
    saved: str
    adapter: Path | None
    start: Path | None


def finished(folder: str) -> Finished | None:
    """The parts of a run's folder; None where the name is no run's.

    Raises:
        ConfigError: the run was not finished.
    """
    run = Path(folder)
    if not (run / "journal.jsonl").is_file():
        return None
    saved, adapter = run / "checkpoint", run / "adapter"
    if not saved.is_dir() and not adapter.is_dir():
        raise ConfigError(f"{run}: expected a finished run, found no checkpoint; finish it by forq tune … --resume")
    config = configs.read(run / "config.toml")
    base = config.checkpoint
    start = None if config.adapter is None else Path(config.adapter)
    return Finished(base, str(saved) if saved.is_dir() else base, adapter if adapter.is_dir() else None, start)
