"""A run: a folder that holds a fine-tune, and the loop that fills it.

    RUN/base/                   the quantized base, where the run was begun from a float checkpoint
    RUN/config.toml             the resolved settings
    RUN/journal.jsonl           what was decided; rebuilds the model from its base
    RUN/metrics.jsonl           for people and plots: losses, slopes, scores, seconds
    RUN/checkpoint/             the best on validation, in the format it came in
    RUN/adapter/                the best adapters, as PEFT keeps them, where the run moved some
    RUN/moved.json              what the best differs by from its base, tensor by tensor
    RUN/samples.json            what the model writes before and after, where its task can show it
    RUN/samples/step-N.png      what it draws at every score, where its task is one of pictures
    RUN/profile.safetensors     factors of the coordinates' units, where the run was given some
    RUN/state/*.safetensors     masters at the last digest, and at the best score; to resume without replaying all

A run can be killed at any instant: the journal's whole lines are a tape, and :meth:`Run.events` plays it before it
goes on. What it plays must rebuild the digests the journal holds.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Streamed
from forq.checkpoints.replace import check_destination
from forq.coordinates import space as spaces
from forq.coordinates.domain import Domains
from forq.coordinates.leaf import Leaf
from forq.coordinates.profile import FILE, Profile
from forq.coordinates.space import Space
from forq.errors import ConfigError, JournalError
from forq.layers import heap
from forq.models.adapters.lora import adapted, add_lora, starts
from forq.models.leaves import trainable
from forq.models.loaded import LoadedModel
from forq.models.quantized import kernels
from forq.models.saved import save
from forq.recipes.plan import plan
from forq.recipes.settings import settings
from forq.runs import config as configs
from forq.runs import engine, journal
from forq.runs.config import RunConfig, TaskConfig
from forq.runs.files import BASE, Masters, Metrics, Scored, changes, difference, put_json, rounding_error, sweep, vacant
from forq.runs.journal import Journal, Line
from forq.runs.oracles.local import Local
from forq.runs.oracles.tape import Tape
from forq.runs.setbacks import clearly_worse
from forq.scalars.rules.audit import at_floor
from forq.tasks import Draws, Task, Writes

DIGEST_EVERY = 100
SAMPLE_TOKENS = 48

# What a resumed run must share with the journal, and what to do where it does not.
_SHARED = {
    "law": "use the forq that wrote it",
    "base": "give the checkpoint the run was started from",
    "start": "give the checkpoint the run was started from",
    "task": "give the data the run was started with",
    "method": "settings cannot change within a run: begin another",
    "device": "resume on the same kind of device",
    "dtype": "load the model in the same dtype",
    "threads": "config.toml of the run says how many",
    "kernel": "install what the run was begun with (onnxruntime for ort), or load the model with the same kernel",
    "leaves": "give the checkpoint the run was started from",
    "profile": "profile.safetensors of the run is not the one it was begun with",
}


class Run:
    """A run's folder with the model and task it is about; :meth:`events` trains.

    Made by :meth:`begin` or :meth:`resume`.

    Attributes:
        first, best, last: the score before the first step, the best so far, and the latest.
        certificate: audits in a row that found no step worth taking, where that ended the run.
        floor: mean gain of the last audits, where steps of this size no longer pay (:mod:`forq.scalars.rules.audit`).
        rounding: norm of what the file's dtype changed when the best was saved, as a share of the whole.
    """

    def __init__(self, folder: Path, config: RunConfig, model: LoadedModel, task: Task) -> None:
        self.folder, self.config, self.model, self.task = folder, config, model, task
        adapters = _adapters(model, config)
        leaves = trainable(model, config.method.move, adapters if config.method.lora.alone else ())
        if config.activations == "int8" and "int8" not in kernels(model):
            raise ConfigError(
                "--activations int8: layers whose integers move are computed by the reference, and no other is left"
            )
        domain: Domains = config.method.domain
        self.profile = self._profile()
        if self.profile is not None:
            self.profile.check(leaves, lambda leaf: leaf.read().shape)
            domain = self.profile.over(domain)
        self.space = Space(leaves, domain)
        # Built now, so that a setting that cannot be is refused before anything is written.
        self._plan = plan(config.method, seed=config.seed, steps=config.steps, room=self.space.room)
        self.first: Scored | None = None
        self.best: Scored | None = None
        self.last: Scored | None = None
        self.rounding: float | None = None
        self.certificate: float | None = None
        self.floor: float | None = None

    @property
    def journal(self) -> Path:
        """Path of the journal."""
        return self.folder / "journal.jsonl"

    @property
    def checkpoint(self) -> Path | None:
        """Path of the tuned checkpoint, once the run is finished; ``None`` where adapters alone move."""
        return self.folder / "checkpoint" if set(self.space.groups) != {"lora"} else None

    @property
    def adapter(self) -> Path | None:
        """Path of the tuned adapters, as PEFT keeps them; ``None`` where none move."""
        return self.folder / "adapter" if "lora" in self.space.groups else None

    @classmethod
    def begin(cls, folder: Path, config: RunConfig, model: LoadedModel, task: Task) -> Run:
        """Start a run in a new or empty folder, or in one where a kill left no more than a beginning.

        Raises:
            ConfigError: something is in the way, a setting cannot be, or nothing can move.
        """
        if not vacant(folder):
            raise ConfigError(f"{folder} is in the way: go on with it by --resume, or choose another --out")
        (folder / FILE).unlink(missing_ok=True)  # a kill may have cut it off; it is copied again
        sweep(folder, BASE)
        kernel = "reference" if set(kernels(model)) <= {"reference"} else config.kernel
        found = {"device": str(model.device), "kernel": kernel, "task": _settled(config.task, task)}
        run = cls(folder, config.model_copy(update=found), model, task)
        check_destination(model.checkpoint.path, folder / "checkpoint", overwrite=True)  # now, not after the last step
        header = run.header()
        for left in [folder / "journal.jsonl", *folder.glob("state/*")]:
            left.unlink(missing_ok=True)
        (folder / "state").mkdir(parents=True, exist_ok=True)
        configs.write(run.config, folder / "config.toml")
        if run.config.profile is not None:
            shutil.copyfile(run.config.profile, folder / FILE)
        journal.Writer.create(run.journal, header).close()
        return run

    @classmethod
    def resume(cls, folder: Path, config: RunConfig, model: LoadedModel, task: Task) -> Run:
        """Go on with a run that was stopped.

        Raises:
            JournalError: base, data, law, threads, device or settings are not those of the journal.
        """
        run = cls(folder, config, model, task)
        # Through JSON, as the journal's side has been: tuples become lists, keys become text.
        written, now = _shared(journal.read(run.journal).header), _shared(json.loads(json.dumps(run.header())))
        # Later versions may describe more; the task's digest covers every token and setting.
        if isinstance(then := written.get("task"), dict):
            now["task"] = {key: value for key, value in now["task"].items() if key in then}
        for key, mend in _SHARED.items():
            if written.get(key) != now.get(key):
                wanted, found = difference(written.get(key), now.get(key))
                raise JournalError(
                    f"{folder}: cannot resume: its journal was written with {key} {wanted}, found {found}; {mend}"
                )
        return run

    def header(self) -> dict[str, Any]:
        """What the journal's first line says: enough to refuse another base, law or setting."""
        model = self.model
        config = self.config
        return {
            "law": spaces.LAW,
            "base": model.checkpoint.digest(),
            "start": self.space.digest(),
            "method": {"recipe": config.recipe, "seed": config.seed, "steps": config.steps}
            | config.method.model_dump(),
            "task": dict(self.task.describe()),
            "leaves": self.space.table(),
            "profile": None if self.profile is None else self.profile.digest,
            "portable": config.method.portable,
            "device": model.device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "kernel": _kernel(model),
            "threads": torch.get_num_threads(),
            # For people; bytes are told by the digests above, wherever they lie.
            "names": {"checkpoint": Path(config.checkpoint).name, "data": Path(config.task.data).name},
            "versions": {name: version(name) for name in _packages(model)} | {"python": platform.python_version()},
        }

    def _profile(self) -> Profile | None:
        """The run's own copy, once it has one."""
        if self.config.profile is None:
            return None
        own = self.folder / FILE
        return Profile.read(own if own.exists() else Path(self.config.profile))

    def events(self) -> Iterator[Line | Scored]:
        """Train; yield every line and score, those of an earlier sitting again from the tape.

        Raises:
            JournalError: the tape does not rebuild the digests it holds, or another process writes this run.
            RunError: the run cannot go on, see :func:`forq.runs.engine.run`.
        """
        past = journal.read(self.journal)
        writer = journal.Writer.extend(past)
        for name in ("checkpoint", "adapter"):
            sweep(self.folder, name)
        metrics, held = self._pick_up(past)
        local = Local(self.space, self.task.batch, lambda batch: self.task.loss(self.model, batch))
        tape = Tape(past.lines, then=local)
        steps, every = self.config.steps, self.config.eval_every
        lines = engine.run(self.space, tape, self._plan, steps=steps, held=held, digest_every=DIGEST_EVERY)
        trained, forwards, began = 0, 0, time.perf_counter()
        gains: list[float] = []
        try:
            yield self._score(metrics, 0, 0)
            for line in lines:
                forwards += len(line.losses)
                trained += line.kind == "train"
                if line.step >= len(past.lines):
                    writer.write(line)
                elif line.step >= held - 1:
                    self._hold_to(past.lines[line.step])
                if line.step >= metrics.steps:
                    metrics.step(line.step, forwards, time.perf_counter() - began, line.notes)
                if line.digest is not None and line.step >= len(past.lines):
                    writer.sync()
                    metrics.sync()
                    self._snapshot("last", line.step + 1)
                yield line
                self.certificate = line.notes.get(engine.CERTIFICATE)
                gains += [line.notes["gain"]] if "gain" in line.notes else []
                self.floor = at_floor(gains)
                if trained and (trained % every == 0 or trained == steps or self.certificate is not None):
                    yield self._score(metrics, trained, forwards)
        finally:
            writer.close()
            metrics.close()

    def save(self, folder: Path | str) -> None:
        """Write the best checkpoint, in the format it came in; only what moved differs from the base.

        Adapters are written as PEFT keeps them: into the folder itself, or its ``adapter/`` where the base moved too.

        Raises:
            ConfigError: no checkpoint was scored yet, or the folder cannot be written.
        """
        best = self._rounded(self._best())
        self._save(Path(folder), Path(folder) if self.checkpoint is None else Path(folder) / "adapter", best)

    def finish(self) -> None:
        """Save the best into the run's folder, close the journal with it, and show it to the model."""
        heap.trim()  # what the allocator keeps of freed buffers would stand beside what the save takes
        masters = self._best()
        best = self._rounded(masters)
        past = journal.read(self.journal)
        if past.lines[-1].kind != "saved":
            assert self.best is not None
            notes = {"trained": float(self.best.trained)}
            writer = journal.Writer.extend(past)
            writer.write(Line(len(past.lines), "saved", (), notes=notes, digest=spaces.digest(best)))
            writer.sync()
            writer.close()
        elif past.lines[-1].digest != spaces.digest(best):
            raise JournalError(f"{self.folder}: state/best.safetensors is not what the journal says was saved")
        self.rounding = rounding_error(self.space.leaves, masters)
        self.space.restore(self._made(masters, spaces.as_stored))
        heap.trim()
        self._save(self.folder / "checkpoint", self.folder / "adapter", best)
        heap.trim()
        moved = changes(self.space.leaves, self._base(), best)
        put_json(self.folder / "moved.json", [asdict(change) for change in moved])
        self._sample("after")

    def _save(self, checkpoint: Path, adapter: Path, best: Mapping[str, Tensor]) -> None:
        model = self.model
        save(model.checkpoint, model.adapters, best, checkpoint, adapter)

    def _base(self) -> Callable[[str], Tensor]:
        """Reads what a leaf's tensor was before the first step."""
        model = self.model
        if self.adapter is None:
            read: Callable[[str], Tensor] = model.checkpoint.read
            return read
        begun = starts(model, **_lora(self.config))
        return lambda name: begun[name] if name in begun else model.checkpoint.read(name)

    def _best(self) -> Mapping[str, Tensor]:
        """The best masters, read from the run's folder one at a time, as they are asked for."""
        if self.best is None:
            raise ConfigError(f"{self.folder}: no validation loss was finite, so there is no best to save")
        best = Masters.load(self.folder / "state" / "best.safetensors")
        if best is None or best.step != self.best.trained:
            raise JournalError(f"{self.folder}/state/best.safetensors is gone or another run's: --resume makes it anew")
        return best.tensors

    def _rounded(self, masters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Masters as the files hold them, one at a time."""
        return self._made(masters, spaces.stored)

    def _made(self, masters: Mapping[str, Tensor], how: Callable[[Leaf, Tensor], Tensor]) -> Mapping[str, Tensor]:
        def make(leaf: Leaf) -> Tensor:
            return how(leaf, masters[leaf.name])

        return Streamed({leaf.name: partial(make, leaf) for leaf in self.space.leaves})

    def _score(self, metrics: Metrics, trained: int, forwards: int) -> Scored:
        scored = metrics.scores.get(trained)
        if scored is None:
            with self.space.as_exported():
                score = self.task.evaluate(self.model, "validation")
            best = score.better_than(self.best.score if self.best else None)
            if best:  # before the score is on record, so that the record never names a file that is not there
                self._snapshot("best", trained)
                if trained == 0:
                    self._sample("before")
            if isinstance(self.task, Draws):
                self._picture(trained)
            worse = self.first is not None and clearly_worse(score, self.first.score)
            scored = Scored(trained, forwards, score, best, worse)
            metrics.score(scored)
        self.first, self.last = self.first or scored, scored
        if scored.best:
            self.best = scored
        return scored

    def _snapshot(self, name: str, step: int) -> None:
        Masters(self.space.masters(), step).save(self.folder / "state" / f"{name}.safetensors")

    def _sample(self, when: str) -> None:
        """Keep what the model writes now; a fine-tune is judged by reading too."""
        if not isinstance(self.task, Writes):
            return
        path = self.folder / "samples.json"
        kept = {} if when == "before" or not path.exists() else json.loads(path.read_text(encoding="utf-8"))
        put_json(path, {**kept, when: self.task.sample(self.model, SAMPLE_TOKENS)})

    def _picture(self, trained: int) -> None:
        """Keep what the model draws now, of the same noise each time."""
        assert isinstance(self.task, Draws)
        with self.space.as_exported():
            drawn = self.task.pictures(self.model)
        if drawn is not None:
            (self.folder / "samples").mkdir(exist_ok=True)
            drawn.save(self.folder / "samples" / f"step-{trained:06}.png")

    def _pick_up(self, past: Journal) -> tuple[Metrics, int]:
        """Metrics cut to the journal, and how many lines the newest snapshot that can be trusted already holds.

        A snapshot is trusted if the journal holds its digest and every score due before it is on record with the
        best of them at hand; otherwise everything is played, and scored, anew.
        """
        path = self.folder / "metrics.jsonl"
        metrics = Metrics(path, len(past.lines))
        best = max((one.trained for one in metrics.scores.values() if one.best), default=None)
        kept = Masters.load(self.folder / "state" / "best.safetensors")
        if best is not None and (kept is None or kept.step < best):
            metrics.close()
            metrics = Metrics(path, len(past.lines), keep_scores=False)
        last = Masters.load(self.folder / "state" / "last.safetensors")
        if last is None or not 0 < last.step <= len(past.lines):
            return metrics, 0
        trained = sum(line.kind == "train" for line in past.lines[: last.step])
        due = range(0, trained, self.config.eval_every)
        if spaces.digest(last.tensors) != past.lines[last.step - 1].digest or not set(due) <= set(metrics.scores):
            return metrics, 0
        self.space.restore(last.tensors)
        return metrics, last.step

    def _hold_to(self, written: Line) -> None:
        if written.digest is not None and written.kind == "train" and self.space.digest() != written.digest:
            raise JournalError(
                f"{self.folder}: step {written.step} of the journal rebuilds other masters than it says; it was "
                "edited, or its noise is not portable and the versions in its header are not these"
            )


def _shared(header: Mapping[str, Any]) -> dict[str, Any]:
    """A header as two sittings of one run must agree on it.

    Its method names every setting: one that came later has its default in a journal from before. The names of the
    data's files are left out: the digest beside them tells the same data under another name.
    """
    own = ("recipe", "seed", "steps")
    found = dict(header)
    try:
        method = header["method"]
        chosen = settings({name: value for name, value in method.items() if name not in own}).model_dump()
        found["method"] = {name: method[name] for name in own} | json.loads(json.dumps(chosen))
        found["task"] = {name: value for name, value in header["task"].items() if name != "origin"}
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        return dict(header)  # not what a run writes: it is shown as it stands
    return found


def _lora(config: RunConfig) -> dict[str, Any]:
    """What :func:`forq.add_lora` takes."""
    return {**config.method.lora.model_dump(exclude={"alone"}), "seed": config.seed}


def _settled(config: TaskConfig, task: Task) -> TaskConfig:
    """The task's settings, with the moment its rows were rendered at if its chat template shows one."""
    moment = task.describe().get("moment")
    if moment is None:
        return config
    return config.model_copy(update={"options": {**config.options, "moment": moment}})


def _adapters(model: LoadedModel, config: RunConfig) -> frozenset[str]:
    """Begin the adapters of a run, where it moves some; names of the layers that carry one."""
    if "lora" in config.method.kinds:
        add_lora(model, **_lora(config))
    elif adapted(model):
        raise ConfigError("this model was loaded with an adapter, which this run does not move: load the base alone")
    return adapted(model)


def _kernel(model: LoadedModel) -> str | dict[str, Any]:
    """The one kernel of all layers; or of most layers their number, of the others their names."""
    found = sorted(kernels(model).items(), key=lambda item: len(item[1]))
    if len(found) < 2:
        return found[0][0] if found else "reference"
    return {**{name: sorted(layers) for name, layers in found[:-1]}, found[-1][0]: len(found[-1][1])}


def _packages(model: LoadedModel) -> list[str]:
    """Whose versions a journal names."""
    own = {"ort": "onnxruntime", "triton": "triton"}
    return ["forq", "torch", "transformers", "numpy", *(own[name] for name in kernels(model) if name in own)]
