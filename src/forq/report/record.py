"""A run as its folder tells it, finished or not."""

from __future__ import annotations

import base64
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from forq.errors import ConfigError, JournalError
from forq.runs import journal
from forq.runs.changes import Change
from forq.runs.journal import Journal, Line
from forq.runs.metrics import Scored, rows_of

_CLOCK = ("step", "forwards", "seconds")


@dataclass(frozen=True, slots=True)
class Step:
    """A training step: the line of the journal with its notes, and where on the axes it lies.

    Attributes:
        trained: training steps done, this one included.
        forwards, seconds: spent when it was done, calibration and scores included in the seconds.
    """

    trained: int
    forwards: int
    seconds: float
    line: Line


@dataclass(frozen=True, slots=True)
class Sides:
    """Numbers of one split before and after, by name; ``rows`` among them."""

    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """What result.json says that a page shows."""

    validation: Sides
    test: Sides
    peak_mb: int | None = None
    rounding: float | None = None
    certificate: float | None = None
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What a run's folder holds for people.

    Attributes:
        name: what the page calls it.
        config: config.toml as text and as read.
        steps: training steps that have their row in metrics.jsonl.
        pictures: what it drew before its first step, at its best and at its end: a caption and a data URI each.
        result, moved, samples: of files a run writes at its end; ``None`` where there is none.
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

    @property
    def finished(self) -> bool:
        """Whether the run went to its end and saved its best."""
        return self.journal.lines[-1].kind == "saved"

    @property
    def trained(self) -> int:
        """Training steps on record."""
        return sum(line.kind == "train" for line in self.journal.lines)

    @property
    def method(self) -> Mapping[str, Any]:
        """Recipe, seed, steps and settings, from the journal's header."""
        found: Mapping[str, Any] = self.journal.header["method"]
        return found

    @property
    def found(self) -> Mapping[str, float]:
        """What the calibration measured and chose; empty where there was none."""
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
        """Working time when so many training steps were done."""
        return max((step.seconds for step in self.steps if step.trained <= trained), default=0.0)

    def events(self) -> Iterator[Line | Scored]:
        """What the run's own iterator yielded, in its order, as far as it is on record."""
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
        ConfigError: it is not a run's folder, or a file of it cannot be read.
        JournalError: the journal is damaged, or holds no training step yet.
    """
    if not (folder / "journal.jsonl").is_file():
        raise ConfigError(
            f"{folder}: expected a run's folder with its journal.jsonl, found none; name what --out named"
        )
    past = journal.read(folder / "journal.jsonl")
    if not any(line.kind == "train" for line in past.lines):
        raise JournalError(f"{folder}: no training step is on record yet, so there is nothing to show; let it run on")
    text = _text(folder / "config.toml")
    try:
        config = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{folder / 'config.toml'}: expected the run's settings, found {error}") from error
    steps, scores = _metrics(folder / "metrics.jsonl", past)
    over = past.lines[-1].kind == "saved"  # what lies beside a journal that goes on is not of this run's end
    return Record(
        folder=folder,
        name=folder.resolve().name,
        journal=past,
        config_text=text,
        config=config,
        steps=steps,
        scores=scores,
        result=_json(folder / "result.json", Result) if over else None,
        moved=_json(folder / "moved.json", list[Change]) if over else None,
        samples=_json(folder / "samples.json", dict[str, str]),
        pictures=tuple(_pictures(folder / "samples", scores)),
    )


def _pictures(folder: Path, scores: Sequence[Scored]) -> Iterator[tuple[str, str]]:
    best = max((one.trained for one in scores if one.best), default=0)
    last = max((one.trained for one in scores), default=0)
    for trained in sorted({0, best, last}):
        file = folder / f"step-{trained:06}.png"
        if file.is_file():
            told = "before" if trained == 0 else f"after step {trained:,}" + (", the best" if trained == best else "")
            yield told, f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def read_all(folders: list[Path]) -> list[Record]:
    """Read several runs; those whose folders are called alike are told apart by the folders they lie in.

    Raises:
        ConfigError: one is given twice, which would make a spread out of nothing.
    """
    places = [folder.resolve() for folder in folders]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"{place.name} is given twice; name every run once")
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
        raise ConfigError(f"{path}: expected the rows a run writes, found one that is none: {error!r}") from error
    reached = count[len(past.lines) - 1]
    return tuple(steps), tuple(scored for scored in scores if scored.trained <= reached)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read it: {error}") from error


def _json(path: Path, kind: Any) -> Any:
    """A small file of the run's end, checked; ``None`` where there is none."""
    if not path.exists():
        return None
    try:
        return TypeAdapter(kind).validate_json(_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise ConfigError(
            f"{path}: expected what a finished run writes, found at {where}: {first['msg']}; "
            "remove it, and the report leaves out what it says"
        ) from error
