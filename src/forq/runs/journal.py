"""The journal: what a run decided, one line a step, append-only, every line sealed by the lines before it.

The first line is the header; it names the law of arithmetic, the base checkpoint and every setting. Each later
line holds a step's losses, and they are enough to rebuild the model from its base without a forward pass. A line
ends with a seal, the hash of the previous seal and its own text, so that reading detects an edit anywhere; only a last
line without its end, which a kill can leave, is dropped and written again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from forq.errors import JournalError
from forq.runs.lock import lock
from forq.scalars.losses import Confirmed, Losses, Own, means
from forq.scalars.moves import Moved
from forq.scalars.protocols import Json

VERSION = 1
_SEAL = ',"#":"'
_SEAL_CHARS = 12


@dataclass(frozen=True, slots=True)
class Line:
    """One step of a run.

    Attributes:
        step: 0, 1, 2, …; calibration comes first and counts.
        kind: ``calibrate`` (nothing moves), ``train``, or ``saved``, which closes a finished run: its notes
            name the training step that was saved, its digest is of the saved tensors.
        losses: the oracle's answers, in the order of the probes; may hold NaN and infinities.
        moved: what the update did.
        notes: numbers that follow from the losses, for people and plots; replay derives them again.
        digest: hash of the masters after this step, on every hundredth line and the last.
    """

    step: int
    kind: str
    losses: tuple[Losses, ...]
    moved: Moved = field(default_factory=Moved)
    notes: Mapping[str, float] = field(default_factory=dict)
    digest: str | None = None

    @property
    def forwards(self) -> int:
        """Forward passes the step took."""
        return sum(answer.forwards for answer in self.losses)


def encode(line: Line) -> dict[str, Json]:
    """A line as JSON-ready values; floats keep every bit, NaN and infinities become strings.

    Rows' losses stand in ``each`` where they were recorded, and ``forwards`` only where some probe did not take one
    forward pass: both are lists in the order of the probes, as ``L`` is. Measured curvature stands in ``F``, the rows
    of a triangle one after the other, and in ``C``, slope, error and curvature of each damping in turn. ``own`` holds
    what the last probes say of each row's own direction: for each of them the mean curvature, then every row's rise.
    """
    body: dict[str, Json] = {"t": line.step, "k": line.kind, "L": [_number(loss) for loss in means(line.losses)]}
    if any(answer.each is not None for answer in line.losses):
        body["each"] = [None if answer.each is None else list(map(_number, answer.each)) for answer in line.losses]
    if any(answer.forwards != 1 for answer in line.losses):
        body["forwards"] = [answer.forwards for answer in line.losses]
    if line.losses and (confirmed := line.losses[0].confirmed) is not None:
        body["F"] = [x for answer in line.losses for x in answer.fisher or ()]
        body["C"] = [x for damping in confirmed for x in damping]
    if own := [answer.own for answer in line.losses if answer.own is not None]:
        body["own"] = [[_number(x) for x in (probe.bend, *probe.rises)] for probe in own]
    if line.kind == "train":
        moved = line.moved
        body["m"] = [moved.changed, moved.cut, moved.total, *([moved.rounded_away] if moved.rounded_away else [])]
    elif line.notes:  # of a training step they follow from the losses, and replay derives them again
        body["n"] = {name: _number(value) for name, value in line.notes.items()}
    if line.digest is not None:
        body["d"] = line.digest
    return body


def decode(body: Mapping[str, Any]) -> Line:
    """The inverse of :func:`encode`.

    Raises:
        JournalError: a field is missing or of another kind.
    """
    try:
        return Line(
            step=int(body["t"]),
            kind=str(body["k"]),
            losses=_losses(body),
            moved=Moved(*(int(n) for n in body.get("m", (0, 0, 0)))),
            notes={str(name): float(value) for name, value in body.get("n", {}).items()},
            digest=body.get("d"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"a journal line does not hold what it must: {error!r}") from error


def _losses(body: Mapping[str, Any]) -> tuple[Losses, ...]:
    numbers = [float(x) for x in body["L"]]
    each = body.get("each", [None] * len(numbers))
    forwards = body.get("forwards", [1] * len(numbers))
    triangle = [float(x) for x in body["F"]] if "F" in body else None
    own = [Own(tuple(float(x) for x in rises), float(bend)) for bend, *rises in body.get("own", ())]
    shared = len(numbers) - len(own)
    if triangle is not None and 2 * len(triangle) != shared * (shared - 1):
        raise ValueError(f"F holds {len(triangle)} numbers for {shared} losses")
    held = [float(x) for x in body.get("C", ())]
    confirmed = tuple(Confirmed(*some) for some in zip(held[::3], held[1::3], held[2::3], strict=True))
    return tuple(
        Losses(
            mean,
            None if rows is None else tuple(float(x) for x in rows),
            int(count),
            None
            if triangle is None or place >= shared
            else tuple(triangle[place * (place - 1) // 2 : place * (place + 1) // 2]),
            None if triangle is None or place else confirmed,
            own[place - shared] if place >= shared else None,
        )
        for place, (mean, rows, count) in enumerate(zip(numbers, each, forwards, strict=True))
    )


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as read: header, whole lines, and how many bytes of a torn tail were left out."""

    path: Path
    header: Mapping[str, Any]
    lines: tuple[Line, ...]
    whole_bytes: int
    torn_bytes: int
    seal: str

    @property
    def forwards(self) -> int:
        """Forward passes the run spent."""
        return sum(line.forwards for line in self.lines)


def read(path: Path) -> Journal:
    """Read and check a journal.

    Raises:
        JournalError: not a journal, of another version, or a whole line does not match its seal (it is named).
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise JournalError(
            f"{path}: expected a run's journal, found none; name the folder that forq tune was given as --out"
        ) from error
    except OSError as error:
        raise JournalError(f"{path}: cannot read the journal: {error.strerror}") from error
    rows = data.split(b"\n")
    tail = rows.pop()
    seal, bodies = "", []
    for number, row in enumerate(rows, start=1):
        body = _open(row, seal)
        if body is None:
            raise JournalError(
                f"{path}, line {number}: the line does not match its seal; the journal was edited or damaged, "
                "and what follows cannot be trusted: restore it from a copy"
            )
        bodies.append(body)
        seal = body.pop("#")
    if not bodies or bodies[0].get("forq") != VERSION:
        found = bodies[0].get("forq") if bodies else "no whole line"
        raise JournalError(f"{path}: expected a forq journal of version {VERSION}, found {found}")
    lines = tuple(decode(body) for body in bodies[1:])
    for expected, line in enumerate(lines):
        if line.step != expected:
            raise JournalError(f"{path}, line {expected + 2}: expected step {expected}, found step {line.step}")
    return Journal(path, bodies[0], lines, len(data) - len(tail), len(tail), seal)


class Writer:
    """Appends lines; each is on its way to the disk before the next step begins."""

    def __init__(self, file: IO[bytes], held: FileLock, seal: str) -> None:
        self._file = file
        self._lock = held
        self._seal = seal

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Writer:
        """Start a journal with its header; refuses to overwrite one.

        Raises:
            JournalError: the file exists.
        """
        held = _lock(path)
        try:
            writer = cls(path.open("xb"), held, "")
        except FileExistsError as error:
            held.release()
            raise JournalError(f"{path} exists: go on with --resume, or choose another folder") from error
        writer._put({"forq": VERSION, **header})
        writer.sync()
        return writer

    @classmethod
    def extend(cls, journal: Journal) -> Writer:
        """Go on with a journal that was read, cutting off its torn tail.

        Raises:
            JournalError: another process writes it, or did since it was read.
        """
        held = _lock(journal.path)
        if journal.path.stat().st_size != journal.whole_bytes + journal.torn_bytes:
            held.release()
            raise JournalError(f"{journal.path} has grown since it was read: another forq writes this run")
        file = journal.path.open("r+b")
        file.truncate(journal.whole_bytes)
        file.seek(journal.whole_bytes)
        return cls(file, held, journal.seal)

    def write(self, line: Line) -> None:
        """Append one line and hand it to the operating system, so that a killed process loses none."""
        self._put(encode(line))

    def sync(self) -> None:
        """Force what was written to the disk itself, against a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._lock.release()

    def _put(self, body: Mapping[str, Any]) -> None:
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        self._seal = _seal(self._seal, text)
        self._file.write(f'{text[:-1]}{_SEAL}{self._seal}"}}\n'.encode())
        self._file.flush()


def _lock(path: Path) -> FileLock:
    """Hold a journal's folder for this process; two writers would tear each other's lines apart."""
    message = f"{path}: another forq is writing this run; wait for it, or stop it"
    return lock(path.parent, JournalError, message)


def _seal(previous: str, text: str) -> str:
    return hashlib.blake2b((previous + text).encode(), digest_size=_SEAL_CHARS // 2).hexdigest()


def _open(row: bytes, previous: str) -> dict[str, Any] | None:
    """A row's values with its seal under ``#``; ``None`` if the row does not match its seal."""
    try:
        body = json.loads(row)
        text = row.decode()
    except ValueError:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("#"), str):
        return None
    cut = text.rfind(_SEAL)
    if cut < 0 or _seal(previous, text[:cut] + "}") != body["#"]:
        return None
    return body


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
