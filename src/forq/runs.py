"""A run: a folder that holds a fine-tune, and the loop that fills it.

    RUN/config.toml             the resolved settings
    RUN/journal.jsonl           what was decided; rebuilds the model from its base
    RUN/metrics.jsonl           for people and plots: losses, slopes, scores, seconds
    RUN/checkpoint/             the best on validation, in the format it came in
    RUN/state/*.safetensors     masters at the last digest, and at the best score; to resume without replaying all

A run can be killed at any instant: the journal's whole lines are a tape, and :meth:`Run.events` plays it before it
goes on. What it plays must rebuild the digests the journal holds.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from forq import config as configs
from forq import engine, journal, spaces
from forq.config import RunConfig
from forq.core import ConfigError, JournalError, RunError
from forq.journal import Line
from forq.models.space import space as space_of
from forq.noise import law
from forq.oracles.local import Local
from forq.oracles.tape import Tape
from forq.recipes import plan
from forq.spaces import Space
from forq.tasks import Score, Task

DIGEST_EVERY = 100


@dataclass(frozen=True, slots=True)
class Scored:
    """A score on the validation rows, taken of the weights as an export would hold them.

    Attributes:
        trained: training steps done before it.
        forwards: forward passes spent on training and calibration before it.
        best: no earlier score was better.
    """

    trained: int
    forwards: int
    score: Score
    best: bool


class Run:
    """A run's folder with the model and task it is about; :meth:`events` trains.

    Made by :meth:`begin` or :meth:`resume`.
    """

    def __init__(self, folder: Path, config: RunConfig, model: nn.Module, task: Task, space: Space) -> None:
        self.folder, self.config = folder, config
        self.model, self.task, self.space = model, task, space
        self.first: Scored | None = None
        self.best: Scored | None = None
        self.rounding: float | None = None
        """Largest relative change that the file's dtype made to a coordinate when the best was saved."""
        self._scores: dict[int, Scored] = {}

    @property
    def journal(self) -> Path:
        """Path of the journal."""
        return self.folder / "journal.jsonl"

    @classmethod
    def begin(cls, folder: Path, config: RunConfig, model: nn.Module, task: Task) -> Run:
        """Start a run in a new or empty folder.

        Raises:
            ConfigError: something is in the way, or nothing can move.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is in the way: go on with it by --resume, or choose another --out")
        space = space_of(model, config.method.move, config.method.unit)
        run = cls(folder, config, model, task, space)
        header = run.header()
        (folder / "state").mkdir(parents=True, exist_ok=True)
        configs.write(config, folder / "config.toml")
        journal.Writer.create(run.journal, header).close()
        return run

    @classmethod
    def resume(cls, folder: Path, config: RunConfig, model: nn.Module, task: Task) -> Run:
        """Go on with a run that was stopped.

        Raises:
            JournalError: base, data, law, threads, device or settings are not those of the journal.
        """
        run = cls(folder, config, model, task, space_of(model, config.method.move, config.method.unit))
        written, now = journal.read(run.journal).header, run.header()
        for key in ("law", "base", "task", "config", "device", "dtype", "threads", "leaves", "start"):
            # Through JSON, as the journal's side has been: tuples become lists, keys become text.
            found = json.loads(json.dumps(now[key]))
            if written.get(key) != found:
                raise JournalError(
                    f"{folder}: cannot resume, {key!r} is not what the journal was written with: expected "
                    f"{_short(written.get(key))}, found {_short(found)}"
                )
        return run

    def header(self) -> dict[str, Any]:
        """What the journal's first line says: enough to refuse another base, law or setting."""
        model: Any = self.model
        settings = self.config.model_dump()
        # Where things lie on this machine does not belong to the fine-tune; what they hold is told by digests.
        settings = {**settings, "checkpoint": Path(settings["checkpoint"]).name}
        settings["task"] = {**settings["task"], "data": Path(settings["task"]["data"]).name}
        return {
            "law": spaces.LAW,
            "base": model.checkpoint.digest(),
            "start": self.space.digest(),
            "config": settings,
            "task": dict(self.task.describe()),
            "leaves": self.space.table(),
            "portable": all(law(noise).portable for noise in self.config.method.estimator.noise),
            "device": model.device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "kernel": "reference",
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("forq", "torch", "transformers", "numpy")}
            | {"python": platform.python_version()},
        }

    def events(self) -> Iterator[Line | Scored]:
        """Train; yield every line and score, those of an earlier sitting again from the tape.

        Raises:
            JournalError: the tape does not rebuild the digests it holds.
            RunError: the run cannot go on, see :func:`forq.engine.run`.
        """
        past = journal.read(self.journal)
        held = self._restore(past.lines)
        self._scores = self._past_scores(len(past.lines))
        method = self.config.method
        local = Local(self.space, self.task.batch, lambda batch: self.task.loss(self.model, batch))
        lines = engine.run(
            self.space,
            Tape(past.lines, then=local),
            plan(method, seed=self.config.seed, steps=self.config.steps),
            steps=self.config.steps,
            held=held,
            digest_every=DIGEST_EVERY,
        )
        writer = journal.Writer.extend(past)
        metrics = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        trained, forwards, began = 0, 0, time.perf_counter()
        try:
            if held == 0 or 0 in self._scores:
                yield from self._score(metrics, 0, 0)
            for line in lines:
                fresh = line.step >= len(past.lines)
                forwards += len(line.losses)
                trained += line.kind == "train"
                if fresh:
                    writer.write(line)
                    seconds = round(time.perf_counter() - began, 3)
                    _say(metrics, {"step": line.step, "forwards": forwards, "seconds": seconds, **line.notes})
                elif line.digest != past.lines[line.step].digest and line.digest is not None:
                    raise JournalError(
                        f"step {line.step}: the journal rebuilds digest {line.digest}, but holds "
                        f"{past.lines[line.step].digest}; it was written by another law or edited"
                    )
                if fresh and line.digest is not None:
                    writer.sync()
                    self._snapshot("last", line.step + 1)
                yield line
                due = trained and (trained % self.config.eval_every == 0 or trained == self.config.steps)
                if due and (trained in self._scores or line.step + 1 >= held):
                    yield from self._score(metrics, trained, forwards)
        finally:
            writer.close()
            metrics.close()

    def save(self, folder: Path | str | None = None, *, overwrite: bool = True) -> Path:
        """Write the best checkpoint, in the format it came in; only what moved differs from the base.

        Raises:
            ConfigError: no checkpoint was scored yet, or the folder cannot be written.
        """
        target = self.folder / "checkpoint" if folder is None else Path(folder)
        model: Any = self.model
        model.checkpoint.save_patched(target, self._best()[0], overwrite=overwrite)
        return target

    def finish(self) -> Path:
        """Save the best checkpoint into the run's folder, close the journal with it, and show it to the model."""
        best, trained = self._best()
        past = journal.read(self.journal)
        if past.lines[-1].kind != "saved":
            notes = {"trained": float(trained)}
            writer = journal.Writer.extend(past)
            writer.write(Line(len(past.lines), "saved", (), notes=notes, digest=spaces.digest(best)))
            writer.sync()
            writer.close()
        self.space.restore({name: tensor.float() for name, tensor in best.items()})
        return self.save()

    def _best(self) -> tuple[dict[str, Tensor], int]:
        """The best masters rounded to the file's dtypes, and the training step they are of."""
        best, trained = _load(self.folder / "state" / "best.safetensors")
        if best is None:
            raise ConfigError(f"{self.folder}: no checkpoint was scored yet; run longer")
        rounded = {leaf.name: spaces.stored(leaf, best[leaf.name]) for leaf in self.space.leaves}
        off = [((rounded[name].float() - x) / x).abs().nan_to_num().max() for name, x in best.items()]
        self.rounding = float(torch.stack(off).max())
        return rounded, trained

    def _score(self, metrics: Any, trained: int, forwards: int) -> Iterator[Scored]:
        if trained not in self._scores:
            with self.space.as_exported():
                score = self.task.evaluate(self.model, "validation")
            best = score.better_than(self.best.score if self.best else None)
            if best:  # before the score is on record, so that the record never names a file that is not there
                self._snapshot("best", trained)
            body = {"trained": trained, "forwards": forwards, "best": best, "score": _plain(score)}
            _say(metrics, body)
            self._scores[trained] = Scored(trained, forwards, score, best)
        scored = self._scores[trained]
        self.first = self.first or scored
        if scored.best:
            self.best = scored
        yield scored

    def _snapshot(self, name: str, step: int) -> None:
        tensors = {key: value.cpu().contiguous() for key, value in self.space.masters().items()}
        path = self.folder / "state" / f"{name}.safetensors"
        new = path.with_suffix(".new")
        try:
            save_file(tensors, new, metadata={"step": str(step)})
        except SafetensorError as error:  # a full disk, in this library's words
            raise RunError(f"{new}: {error}; nothing that was already written is lost") from error
        new.replace(path)

    def _restore(self, lines: tuple[Line, ...]) -> int:
        """Load the newest snapshot that the journal vouches for; how many lines it already holds."""
        masters, step = _load(self.folder / "state" / "last.safetensors")
        if masters is None or not 0 < step <= len(lines):
            return 0
        if spaces.digest(masters) != lines[step - 1].digest:
            return 0
        self.space.restore(masters)
        return step

    def _past_scores(self, lines: int) -> dict[int, Scored]:
        """Scores on record that the journal still reaches; the record is cut to them."""
        path = self.folder / "metrics.jsonl"
        kept: list[str] = []
        scores: dict[int, Scored] = {}
        for row in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                body = json.loads(row)
            except ValueError:
                break  # a torn tail
            if "score" in body:
                scored = Scored(body["trained"], body["forwards"], Score(**body["score"]), body["best"])
                scores[scored.trained] = scored
            elif body["step"] >= lines:
                break
            kept.append(row)
        new = path.with_suffix(".new")
        new.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")
        new.replace(path)
        return scores


def _load(path: Path) -> tuple[dict[str, Tensor] | None, int]:
    try:
        with safe_open(path, framework="pt") as file:
            step = int((file.metadata() or {}).get("step", "0"))
            return {name: file.get_tensor(name) for name in file.keys()}, step  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None, 0


def _plain(score: Score) -> Mapping[str, Any]:
    return {"loss": score.loss, "rows": score.rows, "accuracy": score.accuracy, "main": score.main}


def _say(file: Any, body: Mapping[str, Any]) -> None:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in body.items()}
    file.write(json.dumps(finite) + "\n")
    file.flush()


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else text[:200] + " …"
