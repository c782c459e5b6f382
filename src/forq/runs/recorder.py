"""Write the files of a run while a :class:`~forq.runs.trainer.Trainer` trains it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from forq.coordinates import space as spaces
from forq.runs import journal
from forq.runs.folder import put_json, sweep
from forq.runs.journal import Journal, Line
from forq.runs.metrics import Metrics, Scored
from forq.runs.snapshots import Snapshot
from forq.runs.trainer import Past, Trainer
from forq.tasks import Draws, Writes

SAMPLE_TOKENS = 48


class Recorder:
    """Writes the journal, the metrics, the snapshots and the samples of a run.

    Opening a recorder restores the newest trusted snapshot; :attr:`past` holds the lines and scores
    of earlier sessions.

    Raises:
        JournalError: another process writes this run.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.folder, self._trainer = folder, trainer
        written = journal.read(folder / "journal.jsonl")
        self._writer = journal.Writer.extend(written)
        for name in ("checkpoint", "adapter"):
            sweep(folder, name)
        self._metrics, restored = self._restore(written)
        self._forwards, self._began = 0, time.perf_counter()
        self.past = Past(written.lines, restored, dict(self._metrics.scores))

    def record(self, event: Line | Scored) -> None:
        """Write an event to the files, unless it is already on record."""
        if isinstance(event, Scored):
            self._record_score(event)
        else:
            self._record_line(event)

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
        self._metrics.close()

    def _record_line(self, line: Line) -> None:
        self._forwards += line.forwards
        new = line.step >= len(self.past.lines)
        if new:
            self._writer.write(line)
        if line.step >= self._metrics.steps:
            self._metrics.step(line.step, self._forwards, time.perf_counter() - self._began, line.notes)
        if new and line.digest is not None:
            self._writer.sync()
            self._metrics.sync()
            self._snapshot("last", line.step + 1)

    def _record_score(self, scored: Scored) -> None:
        if scored.trained in self._metrics.scores:
            return
        if scored.best:  # saved before the score is recorded, so that the record never names a missing file
            self._snapshot("best", scored.trained)
            if scored.trained == 0:
                write_sample(self.folder, self._trainer, "before")
        self._draw(scored.trained)
        self._metrics.score(scored)

    def _snapshot(self, name: str, step: int) -> None:
        Snapshot(self._trainer.space.masters(), step).save(self.folder / "state" / f"{name}.safetensors")

    def _draw(self, trained: int) -> None:
        """Save a picture that the model draws, from the same noise each time."""
        task = self._trainer.task
        if not isinstance(task, Draws):
            return
        with self._trainer.space.as_exported():
            picture = task.pictures(self._trainer.model)
        if picture is not None:
            (self.folder / "samples").mkdir(exist_ok=True)
            picture.save(self.folder / "samples" / f"step-{trained:06}.png")

    def _restore(self, written: Journal) -> tuple[Metrics, int]:
        """The metrics up to the journal's end, and the number of lines in the newest trusted snapshot.

        A snapshot is trusted if the journal holds its digest, every score due before it is on
        record, and the snapshot of the best score exists. Otherwise the run is replayed and scored
        from the start.
        """
        path, space = self.folder / "metrics.jsonl", self._trainer.space
        metrics = Metrics(path, len(written.lines))
        best = max((scored.trained for scored in metrics.scores.values() if scored.best), default=None)
        best_snapshot = Snapshot.load(self.folder / "state" / "best.safetensors")
        if best is not None and (best_snapshot is None or best_snapshot.step < best):
            metrics.close()
            metrics = Metrics(path, len(written.lines), keep_scores=False)
        last = Snapshot.load(self.folder / "state" / "last.safetensors")
        if last is None or not 0 < last.step <= len(written.lines):
            return metrics, 0
        trained = sum(line.kind == "train" for line in written.lines[: last.step])
        due = range(0, trained, self._trainer.config.eval_every)
        if spaces.digest(last.tensors) != written.lines[last.step - 1].digest or not set(due) <= set(metrics.scores):
            return metrics, 0
        space.restore(last.tensors)
        return metrics, last.step


def write_sample(folder: Path, trainer: Trainer, when: str) -> None:
    """Write a sample of the model's text into samples.json, for people to judge the tuning, if its task can make one.

    Args:
        when: ``before`` or ``after``.
    """
    if not isinstance(trainer.task, Writes):
        return
    path = folder / "samples.json"
    samples = {} if when == "before" or not path.exists() else json.loads(path.read_text(encoding="utf-8"))
    put_json(path, {**samples, when: trainer.task.sample(trainer.model, SAMPLE_TOKENS)})
