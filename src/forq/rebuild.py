"""From a journal and the base checkpoint back to the tuned one, without a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq import engine, journal, spaces
from forq.core import ConfigError, FormatError, JournalError
from forq.formats.checkpoint import Checkpoint
from forq.journal import Journal, Line
from forq.leaves import DOMAINS
from forq.oracles.tape import Tape
from forq.recipes import Settings, plan
from forq.spaces import Space


@dataclass(frozen=True, slots=True)
class Filed:
    """A leaf straight from its file: nobody looks at it while a tape plays, so nothing is shown to anyone."""

    name: str
    group: str
    out_axis: int
    base: Checkpoint

    @property
    def dtype(self) -> torch.dtype:
        return self.base.info[self.name].dtype

    def read(self) -> Tensor:
        return self.base.read(self.name).float()

    def write(self, x: Tensor) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What :func:`verify` found; every field but the counts is a fact that was checked.

    Attributes:
        steps, forwards: training steps and forward passes on record.
        torn_bytes: bytes of a last line that a kill cut off; the lines before it are whole.
        finished: the run went to its end.
        rebuilt: the base rebuilds every digest; ``None`` if no base was given.
        checkpoint: the run's ``checkpoint/`` holds exactly the tensors the journal rebuilds; ``None`` if
            there is none, or no base was given.
    """

    steps: int
    forwards: int
    torn_bytes: int
    finished: bool
    rebuilt: bool | None
    checkpoint: bool | None


def replay(run: Path | str, base: Path | str, out: Path | str, *, step: int | None = None) -> int:
    """Write the checkpoint a run had after ``step`` training steps; by default the one it saved.

    Args:
        run: the run's folder, or its journal alone.
        base: the checkpoint the run began from: a folder or a hub id.
        out: a new folder.
        step: training steps; 0 is the base itself.

    Returns:
        The training step that was rebuilt.

    Raises:
        JournalError: the journal is damaged, of another base or law, or does not rebuild its digests.
        ConfigError: the run has no such step.
    """
    past, ckpt = journal.read(_journal_of(run)), Checkpoint.open(base)
    saved = _saved(past)
    last = sum(line.kind == "train" for line in past.lines)
    wanted = step if step is not None else int(saved.notes["trained"]) if saved else last
    if not 0 <= wanted <= last:
        raise ConfigError(f"--step: the run has steps 0 … {last}, found {wanted}")
    space = _space(past, ckpt)
    for _ in _play(past, space, wanted):
        pass
    tensors = space.exported()
    if saved and wanted == saved.notes["trained"] and spaces.digest(tensors) != saved.digest:
        raise JournalError("the rebuilt tensors are not those the run saved: the journal and this base do not match")
    ckpt.save_patched(Path(out), tensors)
    return wanted


def verify(run: Path | str, base: Path | str | None = None) -> Verdict:
    """Is this journal whole, and does it rebuild what it claims?

    Raises:
        JournalError: a line does not match its seal, the base is another, or a digest is not rebuilt.
    """
    past = journal.read(_journal_of(run))
    saved = _saved(past)
    trained = sum(line.kind == "train" for line in past.lines)
    rebuilt = matches = None
    if base is not None:
        ckpt = Checkpoint.open(base)
        space = _space(past, ckpt)
        best: dict[str, Tensor] | None = None
        for done in _play(past, space, trained):
            if saved and done == saved.notes["trained"]:
                best = space.exported()
        rebuilt = True
        if saved and best is not None:
            if spaces.digest(best) != saved.digest:
                raise JournalError("the rebuilt tensors are not those the run saved")
            matches = _holds(Path(run) / "checkpoint", best)
    return Verdict(trained, past.forwards, past.torn_bytes, saved is not None, rebuilt, matches)


def _play(past: Journal, space: Space, steps: int) -> Iterator[int]:
    """Replay up to ``steps`` training steps; yield the number done, from 0, and hold every digest to account."""
    yield 0
    if steps == 0:
        return
    config = past.header["config"]
    method = Settings.model_validate(config["method"])
    total = int(config["steps"])
    lines = engine.run(space, Tape(past.lines), plan(method, seed=int(config["seed"]), steps=total), steps=total)
    done = 0
    for line in lines:
        held = past.lines[line.step].digest
        if held is not None and space.digest() != held:
            why = "" if past.header["portable"] else "; its noise is not portable: replay it with the versions it names"
            raise JournalError(f"step {line.step}: the masters rebuilt from this base are not the journal's{why}")
        if line.kind == "train":
            done += 1
            yield done
        if done == steps:
            return


def _space(past: Journal, ckpt: Checkpoint) -> Space:
    header = past.header
    if header["law"] != spaces.LAW:
        raise JournalError(f"the journal was written by law {header['law']}, this forq knows law {spaces.LAW}")
    if header["base"] != ckpt.digest():
        raise JournalError(
            f"another base: the journal began from a checkpoint of digest {header['base']}, {ckpt.path} has "
            f"{ckpt.digest()}; give the checkpoint the run was started from"
        )
    leaves = [Filed(str(name), str(group), int(axis), ckpt) for name, group, axis in header["leaves"]]
    missing = [leaf.name for leaf in leaves if leaf.name not in ckpt.info]
    if missing:
        raise FormatError(f"{ckpt.path}: the journal moves {missing[0]!r}, which is not there")
    return Space(leaves, DOMAINS[header["config"]["method"]["unit"]])


def _saved(past: Journal) -> Line | None:
    return past.lines[-1] if past.lines and past.lines[-1].kind == "saved" else None


def _journal_of(run: Path | str) -> Path:
    path = Path(run)
    return path / "journal.jsonl" if path.is_dir() else path


def _holds(folder: Path, tensors: dict[str, Tensor]) -> bool | None:
    if not folder.is_dir():
        return None
    found: Any = Checkpoint.open(folder)
    return all(name in found.info and torch.equal(found.read(name), tensor) for name, tensor in tensors.items())
