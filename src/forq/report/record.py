"""The record of a run, read from its folder; the run may be finished or not."""

from __future__ import annotations

import base64
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from forq.errors import ConfigError, JournalError
from forq.report.ranks import Shares
from forq.runs import journal
from forq.runs.changes import Change
from forq.runs.journal import Journal, Line
from forq.runs.metrics import Scored, rows_of
from forq.runs.ranks.timings import FILE as RANKS

_CLOCK = ("step", "forwards", "seconds")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """A training step: its journal line with notes, and its position on the axes.

    Attributes:
        trained: number of training steps so far, this one included.
        forwards, seconds: forward passes and time spent so far; the time includes calibration and
            validation.
    """

    trained: int
    forwards: int
    seconds: float
    line: Line


@dataclass(frozen=True, slots=True)
class Sides:
    """The metrics of one split before and after, by name, and the number of rows (``rows``)."""

    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Test rows by right class (first index) and by the class that the model chose."""

    names: list[str]
    before: list[list[int]]
    after: list[list[int]]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The watched data set that ended a run, and by how much it was beyond its limit."""

    watch: str
    kl: float
    limit: float
    step: int


@dataclass(frozen=True, slots=True)
class Result:
    """The part of result.json that the page shows."""

    validation: Sides
    test: Sides
    peak_mb: int | None = None
    rounding: float | None = None
    certificate: float | None = None
    floor: float | None = None
    confusion: Confusion | None = None
    watch: dict[str, Sides] = field(default_factory=dict)
    stopped: Stopped | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The contents of a run's folder, for a report.

    Attributes:
        name: name of the run on the page.
        config_text, config: config.toml as text and parsed.
        steps: training steps with a row in metrics.jsonl.
        pictures: pictures drawn before the first step, at the best step and at the last: caption
            and data URI.
        result, moved, samples: files that a run writes at its end; ``None`` if missing.
        ranks: what each rank did in the latest session, if several processes tuned together.
    """

    folder: Path
    name: str
    journal: Journal
    config_text: str
    config: Mapping[str, Any]
    steps: tuple[Step, ...]
    scores: tuple[Scored, ...]
    result: Result | None
    moved: list[Change] | None
    samples: dict[str, str] | None
    pictures: tuple[tuple[str, str], ...] = ()
    ranks: Shares | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has ended and saved its best checkpoint."""
        return self.journal.lines[-1].kind == "saved"

    @property
    def trained(self) -> int:
        """Number of training steps in the journal."""
        return sum(line.kind == "train" for line in self.journal.lines)

    @property
    def method(self) -> Mapping[str, Any]:
        """Recipe, seed, steps and settings, from the journal's header."""
        method: Mapping[str, Any] = self.journal.header["method"]
        return method

    @property
    def calibration(self) -> Mapping[str, float]:
        """The values that the calibration measured and chose; empty without calibration."""
        return next((line.notes for line in reversed(self.journal.lines) if line.kind == "calibrate"), {})

    @property
    def seconds(self) -> float:
        """Working time until the last step."""
        return self.steps[-1].seconds if self.steps else 0.0

    @property
    def best(self) -> Scored | None:
        """The best score on validation so far."""
        return next((scored for scored in reversed(self.scores) if scored.best), None)

    def seconds_at(self, trained: int) -> float:
        """Working time after that many training steps."""
        return max((step.seconds for step in self.steps if step.trained <= trained), default=0.0)

    def events(self) -> Iterator[Line | Scored]:
        """The recorded events of the run, in the order in which the run yielded them."""
        noted = {step.line.step: step.line for step in self.steps}
        scores = {scored.trained: scored for scored in self.scores}
        trained = 0
        if 0 in scores:
            yield scores[0]
        for line in self.journal.lines:
            if line.kind == "saved":
                continue
            yield noted.get(line.step, line)
            trained += line.kind == "train"
            if line.kind == "train" and trained in scores:
                yield scores[trained]


def read(folder: Path) -> Record:
    """Read a run's folder.

    Raises:
        ConfigError: this is not a run's folder, or one of its files cannot be read.
        JournalError: the journal is damaged or has no training step yet.
    """
    if not (folder / "journal.jsonl").is_file():
        raise ConfigError(
            f"{folder}: expected a run's folder with a journal.jsonl, found none; give the folder of forq tune --out"
        )
    past = journal.read(folder / "journal.jsonl")
    if not any(line.kind == "train" for line in past.lines):
        raise JournalError(f"{folder}: no training step is on record yet, so there is nothing to show; try again later")
    text = _text(folder / "config.toml")
    try:
        config = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{folder / 'config.toml'}: expected the run's settings, found {error}") from error
    steps, scores = _metrics(folder / "metrics.jsonl", past)
    finished = past.lines[-1].kind == "saved"  # otherwise result.json and moved.json are from an earlier end
    return Record(
        folder=folder,
        name=folder.resolve().name,
        journal=past,
        config_text=text,
        config=config,
        steps=steps,
        scores=scores,
        result=_json(folder / "result.json", TypeAdapter(Result)) if finished else None,
        moved=_json(folder / "moved.json", TypeAdapter(list[Change])) if finished else None,
        samples=_json(folder / "samples.json", TypeAdapter(dict[str, str])),
        pictures=tuple(_pictures(folder / "samples", scores)),
        ranks=_json(folder / RANKS, TypeAdapter(Shares)),
    )


def _pictures(folder: Path, scores: Sequence[Scored]) -> Iterator[tuple[str, str]]:
    best = max((scored.trained for scored in scores if scored.best), default=0)
    last = max((scored.trained for scored in scores), default=0)
    for trained in sorted({0, best, last}):
        file = folder / f"step-{trained:06}.png"
        if file.is_file():
            caption = "before" if trained == 0 else f"after step {trained:,}"
            caption += ", the best" if 0 < trained == best else ""
            yield caption, f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def read_all(folders: list[Path]) -> list[Record]:
    """Read several runs. If folders have the same name, their parent folders are added to the names.

    Raises:
        ConfigError: a run is given twice, which would give a false spread.
    """
    places = [folder.resolve() for folder in folders]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"{place.name} is given twice; give each run once")
    depth = 1
    while len({place.parts[-depth:] for place in places}) < len(places):
        depth += 1
    return [
        replace(read(folder), name="/".join(place.parts[-depth:]))
        for folder, place in zip(folders, places, strict=True)
    ]


def _metrics(path: Path, past: Journal) -> tuple[tuple[Step, ...], tuple[Scored, ...]]:
    trained = 0
    count = {line.step: (trained := trained + (line.kind == "train")) for line in past.lines}
    steps, scores = [], []
    try:
        for _, body in rows_of(path):
            if "score" in body:
                scores.append(Scored.of(body))
            elif body["step"] in count and past.lines[body["step"]].kind == "train":
                notes = {name: math.nan if x is None else float(x) for name, x in body.items() if name not in _CLOCK}
                line = replace(past.lines[body["step"]], notes=notes)
                steps.append(Step(count[line.step], body["forwards"], body["seconds"], line))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: expected the rows of a run, found a damaged row: {error!r}") from error
    reached = count[len(past.lines) - 1]
    return tuple(steps), tuple(scored for scored in scores if scored.trained <= reached)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read it: {error}") from error


def _json(path: Path, schema: TypeAdapter[T]) -> T | None:
    """Read and check a JSON file that a run writes at its end; ``None`` if it does not exist."""
    if not path.exists():
        return None
    try:
        return schema.validate_json(_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise ConfigError(
            f"{path}: expected what a finished run writes, found at {where}: {first['msg']}; "
            "remove the file, and the report leaves this part out"
        ) from error
