"""Metrics: what people and plots are shown of a run, in metrics.jsonl."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forq.tasks import Score


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

    def _put(self, body: Mapping[str, object]) -> None:
        self._file.write(json.dumps(body) + "\n")
        self._file.flush()
