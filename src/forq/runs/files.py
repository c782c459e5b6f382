"""What a run's folder holds beside its journal: masters to resume from, and what people are shown of it."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from forq.checkpoints import Streamed, TensorInfo
from forq.checkpoints.containers.safetensors import read_header, read_metadata
from forq.checkpoints.write import write_file
from forq.coordinates.leaf import LatticeLeaf, Leaf, PackedLeaf
from forq.coordinates.profile import FILE
from forq.coordinates.space import stored
from forq.errors import FormatError, RunError
from forq.tasks import Score

_CHUNK = 1 << 20
"""Coordinates compared at once: a float64 copy of an embedding would be larger than the model."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A score on the validation rows, taken of the weights as an export would hold them.

    Attributes:
        trained: training steps done before it.
        forwards: forward passes spent on training and calibration before it.
        best: no earlier score was better.
        worse: clearly worse than the score before the first step (:mod:`forq.runs.setbacks`).
    """

    trained: int
    forwards: int
    score: Score
    best: bool
    worse: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Scored:
        """From its row of metrics.jsonl."""
        return cls(body["trained"], body["forwards"], Score(**body["score"]), body["best"], body.get("worse", False))


@dataclass(frozen=True, slots=True)
class Masters:
    """A snapshot of the coordinates, and how many lines or training steps it holds."""

    tensors: Mapping[str, Tensor]
    step: int

    @classmethod
    def load(cls, path: Path) -> Masters | None:
        """A snapshot, or ``None`` where there is no whole one; nothing is believed of it but its own bytes.

        Its tensors are read when they are asked for.
        """
        try:
            held, step = read_header(path), int(read_metadata(path).get("step", "-1"))
        except (OSError, FormatError, ValueError):
            return None
        return cls(Streamed({name: partial(_read, path, info) for name, info in held.items()}), step)

    def save(self, path: Path) -> None:
        """Write the snapshot whole or not at all.

        Raises:
            RunError: the disk refuses.
        """
        new = path.with_suffix(".new")
        plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors.items()}
        tensors = ((name, self.tensors[name].cpu()) for name in plan)
        try:
            write_file(new, plan, tensors, {"step": str(self.step)})
            with new.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:  # a full disk
            raise RunError(f"{new}: {error}; nothing that was already written is lost") from error
        new.replace(path)


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The whole rows of a metrics.jsonl, as text and as read; nothing after a torn one, nothing where no file is."""
    for row in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            yield row, json.loads(row)
        except ValueError:
            return


class Metrics:
    """metrics.jsonl: one row a step and one a score; cut back to what the journal reaches when it is opened.

    Attributes:
        scores: the scores on record, by training step.
        seconds: working time of earlier sittings.
        steps: the first step that is not on record; a kill between the journal and this file leaves one out.
    """

    def __init__(self, path: Path, lines: int, *, keep_scores: bool = True) -> None:
        self.scores: dict[int, Scored] = {}
        self.seconds = 0.0
        self.steps = 0
        kept = []
        for row, body in rows_of(path):
            if "score" in body:
                if not keep_scores:
                    continue
                scored = Scored.of(body)
                self.scores[scored.trained] = scored
            elif body["step"] >= lines:
                break
            else:
                self.seconds, self.steps = body["seconds"], body["step"] + 1
            kept.append(row)
        new = path.with_suffix(".new")
        new.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")
        new.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def step(self, number: int, forwards: int, seconds: float, notes: Mapping[str, float]) -> None:
        """Record a step."""
        finite = {name: value if math.isfinite(value) else None for name, value in notes.items()}
        self.steps = number + 1
        self._put({**finite, "step": number, "forwards": forwards, "seconds": round(self.seconds + seconds, 3)})

    def score(self, scored: Scored) -> None:
        """Record a score."""
        self.scores[scored.trained] = scored
        self._put(asdict(scored))

    def sync(self) -> None:
        """Force what was written to the disk itself."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _put(self, body: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(body) + "\n")
        self._file.flush()


def _read(path: Path, info: TensorInfo) -> Tensor:
    with path.open("rb") as stream:
        return info.read(stream)


def rounding_error(leaves: Iterable[Leaf], masters: Mapping[str, Tensor]) -> float:
    """Norm of what rounding to the file's dtype changes, as a share of the norm of all that is rounded.

    Integers are stored as they are, and do not count.
    """
    off = whole = 0.0
    for leaf in leaves:
        if isinstance(leaf, LatticeLeaf | PackedLeaf):
            continue
        exact = masters[leaf.name]
        rounded = stored(leaf, exact).reshape(-1)
        exact = exact.reshape(-1)
        for start in range(0, len(exact), _CHUNK):
            x = exact[start : start + _CHUNK].double()
            whole += float(x.square().sum())
            off += float(x.sub_(rounded[start : start + _CHUNK].double()).square_().sum())
    return math.sqrt(off / whole) if whole else 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """What a run changed in one tensor of the file: a row of moved.json.

    Attributes:
        total, changed: coordinates, or words of packed integers, and those that differ from the base.
        norm, moved: norms of the base and of the difference; packed integers have none.
        flipped: coordinates that changed their sign; ``None`` of packed integers.
    """

    name: str
    group: str
    total: int
    changed: int
    norm: float | None
    moved: float | None
    flipped: int | None


def changes(leaves: Iterable[Leaf], base: Callable[[str], Tensor], saved: Mapping[str, Tensor]) -> list[Change]:
    """What a run changed, tensor by tensor.

    Args:
        base: reads a tensor of the checkpoint the run began from.
        saved: the tensors a save writes, in the file's dtypes.
    """
    rows = []
    for leaf in leaves:
        # In this order: a tensor that is packed to be saved takes twice its size while it is made.
        new = saved[leaf.name].cpu().reshape(-1)
        old = base(leaf.name).reshape(-1)
        changed, flipped, norm, moved = 0, 0, 0.0, 0.0
        for start in range(0, old.numel(), _CHUNK):
            was, now = old[start : start + _CHUNK], new[start : start + _CHUNK]
            changed += int((was != now).sum())
            if not old.is_floating_point():
                continue
            x, y = was.double(), now.double()
            flipped += int((x * y < 0).sum())
            norm += float(x.square().sum())
            moved += float((y - x).square().sum())
        told = (math.sqrt(norm), math.sqrt(moved), flipped) if old.is_floating_point() else (None, None, None)
        rows.append(Change(leaf.name, leaf.group, old.numel(), changed, *told))
    return rows


def put_json(path: Path, body: Any) -> None:
    """Write a small JSON file whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(path)


BASE = "base"
"""Inside a run's folder: the quantized checkpoint it began from, where it was made of a float one."""


def vacant(folder: Path) -> bool:
    """Whether a run may begin here: nothing there, or what a run leaves that was killed before its first whole line."""
    if not folder.is_dir():
        return not folder.exists()
    names = {path.name for path in folder.iterdir() if not path.match(f".{BASE}.*.partial")}
    path = folder / "journal.jsonl"
    torn = path.is_file() and b"\n" not in path.read_bytes()
    begun = {"state", "config.toml", "config.new", "journal.jsonl", BASE, FILE}
    return names <= begun and (torn or not path.exists())


def sweep(folder: Path, name: str) -> None:
    """Remove what saves of ``folder / name`` left beside it that were killed half-way."""
    for pattern in (f".{name}.*.partial", f".{name}.*.old"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def difference(written: object, now: object) -> tuple[str, str]:
    """The first place where two values of one key differ, in words."""
    if isinstance(written, dict) and isinstance(now, dict):
        for key in [*written, *now]:
            if written.get(key) != now.get(key):
                wanted, found = difference(written.get(key), now.get(key))
                return f"{key} = {wanted}", f"{key} = {found}"
    texts = [json.dumps(value) for value in (written, now)]
    return texts[0][:120], texts[1][:120]
