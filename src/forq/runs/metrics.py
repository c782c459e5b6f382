"""Metrics of a run in metrics.jsonl, for people and plots."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forq.tasks import Score


@dataclass(frozen=True, slots=True)
class Watched:
    """What an evaluation measured on a watched data set; see :mod:`forq.runs.watch`.

    Attributes:
        kl: mean of KL(base ‖ tuned) over the scored tokens, in nats; None where the model predicts no tokens.
    """

    score: Score
    kl: float | None

    def numbers(self) -> dict[str, float]:
        """Loss, metrics and divergence by name."""
        return {**self.score.numbers(), **({} if self.kl is None else {"kl": self.kl})}


@dataclass(frozen=True, slots=True)
class Scored:
    """A score on the validation rows, measured with the weights as an export would hold them.

    Attributes:
        trained: number of training steps before it.
        forwards: number of forward passes for training and calibration before it.
        best: whether no earlier score was better.
        worse: whether it is clearly worse than the score before the first step; see
            :mod:`forq.runs.setbacks`.
        watch: what was measured on the watched data sets, by name.
        over: name of a watched data set that is beyond its limit; such a score is never the best, and the run ends.
    """

    trained: int
    forwards: int
    score: Score
    best: bool
    worse: bool = False
    watch: Mapping[str, Watched] = field(default_factory=dict)
    over: str | None = None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Scored:
        """Read a score from its row of metrics.jsonl."""
        watch = {name: Watched(Score(**row["score"]), row["kl"]) for name, row in body.get("watch", {}).items()}
        score, worse = Score(**body["score"]), body.get("worse", False)
        return cls(body["trained"], body["forwards"], score, body["best"], worse, watch, body.get("over"))


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The complete rows of a metrics.jsonl, as text and parsed; they end at a torn row, or at once without a file."""
    for row in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            yield row, json.loads(row)
        except ValueError:
            return


class Metrics:
    """metrics.jsonl, with a row for each step and each score; opening it removes rows beyond the journal.

    Attributes:
        scores: the scores on record, by training step.
        seconds: working time of earlier sessions.
        steps: the first step that is not on record. A kill between the writes of journal and
            metrics leaves a step out.
    """

    def __init__(self, path: Path, lines: int, *, keep_scores: bool = True) -> None:
        self.scores: dict[int, Scored] = {}
        self.seconds = 0.0
        self.steps = 0
        rows = []
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
            rows.append(row)
        new = path.with_suffix(".new")
        new.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
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
        body = asdict(scored)
        if not scored.watch:
            del body["watch"], body["over"]
        for row in (body, *body.get("watch", {}).values()):
            del row["score"]["confusion"]  # as large as the square of the classes; result.json has the test rows'
        self._put(body)

    def sync(self) -> None:
        """Force the written rows to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _put(self, body: Mapping[str, object]) -> None:
        self._file.write(json.dumps(body) + "\n")
        self._file.flush()
