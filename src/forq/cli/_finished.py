"""A run's folder in the place of a checkpoint: what it began from, and what it saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError
from forq.runs import config as configs
from forq.runs import journal


@dataclass(frozen=True, slots=True)
class Finished:
    """Where a run began, and what to load for its result: a checkpoint, and an adapter where it moved some.

    Attributes:
        start: the adapter that the run went on from.
        digest: digest of the base, as the journal holds it.
    """

    folder: Path
    base: str
    saved: str
    adapter: Path | None
    start: Path | None
    digest: object

    def require_base(self) -> None:
        """Refuse a base that was replaced after the run, before it is loaded as the run's.

        Raises:
            ConfigError: its tensors are not those that the run began from.
        """
        if (found := Checkpoint.open(self.base).digest()) != self.digest:
            own = f", or name it with --adapter {self.adapter}" if self.adapter is not None else ""
            raise ConfigError(
                f"{self.folder}: expected the checkpoint that the run began from, of digest {self.digest}, found "
                f"digest {found} at {self.base}: it was replaced since; put the run's own back there{own}"
            )


def finished(folder: str) -> Finished | None:
    """The parts of a run's folder; None where the name is no run's.

    Raises:
        ConfigError: the run was not finished; or its result is an adapter, and the checkpoint that it belongs to was
            replaced by another.
    """
    run = Path(folder)
    if not (run / "journal.jsonl").is_file():
        return None
    saved, adapter = run / "checkpoint", run / "adapter"
    if not saved.is_dir() and not adapter.is_dir():
        raise ConfigError(
            f"{run}: expected a finished run, found no checkpoint; finish it (forq tune … --resume), or rebuild what "
            f"it has: forq replay {run} --base CHECKPOINT --out FOLDER"
        )
    config = configs.read(run / "config.toml")
    base = config.checkpoint
    start = None if config.adapter is None else Path(config.adapter)
    digest = journal.read(run / "journal.jsonl").header.get("base")
    made = Finished(
        run, base, str(saved) if saved.is_dir() else base, adapter if adapter.is_dir() else None, start, digest
    )
    if made.saved == base:
        made.require_base()
    return made
