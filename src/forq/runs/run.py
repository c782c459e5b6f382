"""A run: a folder with everything about a fine-tuning.

    RUN/base/                   the quantized base, if the run began from a float checkpoint
    RUN/base.json               digest of the float checkpoint that the quantized base was made from
    RUN/rows/                   the rows, if they were given in memory
    RUN/config.toml             the resolved settings
    RUN/journal.jsonl           all decisions; rebuilds the tuned model from its base
    RUN/metrics.jsonl           losses, slopes, scores and seconds, for people and plots
    RUN/checkpoint/             the best checkpoint on validation, in the base's format
    RUN/adapter/                the best adapters in PEFT's format, if adapters moved
    RUN/result.json             the outcome: scores of the base and of the saved file
    RUN/moved.json              the differences between best and base, tensor by tensor
    RUN/ranks.json              what each rank did in the latest session, if several processes tuned together
    RUN/samples.json            text of the model before and after, if the task can sample it
    RUN/samples/step-N.png      a picture at every score, if the task is on pictures
    RUN/profile.safetensors     factors of the coordinates' units, if the run has a profile
    RUN/state/*.safetensors     masters at the last digest and at the best score, for a faster resume

A run can be killed at any moment. The complete lines of the journal are a tape, which
:meth:`Run.events` replays before it continues. The replay must rebuild the digests in the journal.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from forq.checkpoints import Rows, Streamed, rows_of
from forq.checkpoints.replace import check_destination
from forq.coordinates import space as spaces
from forq.coordinates.leaf import Leaf, PackedLeaf
from forq.coordinates.profile import FILE
from forq.coordinates.space import Space
from forq.errors import ConfigError, JournalError
from forq.layers import heap
from forq.models.adapters import peft
from forq.models.adapters.lora import factors_of, initial_factors
from forq.models.loaded import LoadedModel
from forq.models.quantized import free_buffers, kernels
from forq.models.saved import save
from forq.runs import config as configs
from forq.runs import journal
from forq.runs.agreement import refuse_taken
from forq.runs.base_values import restore_base
from forq.runs.changes import changes, rounding_error
from forq.runs.config import RunConfig
from forq.runs.fixed_options import fix_options
from forq.runs.folder import BASE, make, put_json, sweep, vacant
from forq.runs.header import header, require_same
from forq.runs.journal import Line
from forq.runs.make_trainer import make_trainer
from forq.runs.metrics import Scored
from forq.runs.older_runs import with_settled_method
from forq.runs.ranks.timings import FILE as RANKS
from forq.runs.recorder import Recorder, write_sample
from forq.runs.snapshots import Snapshot
from forq.runs.trainer import Past, Trainer, lora_settings
from forq.scalars.protocols import Oracle
from forq.tasks import Task

if TYPE_CHECKING:  # a torch without torch.distributed tunes in one process
    from forq.runs.ranks.team import Team


class Run:
    """A run's folder, the trainer that fills it, and the saving of its results.

    Runs are made by :meth:`begin` or :meth:`resume`.

    Attributes:
        trainer: the trainer, with model, task, space and the scores so far.
        team: the ranks that tune together, of which this process is the chief; None where it is alone.
        rounding: relative error of rounding the best to the file's dtype, once it is saved.
        result: the fields of result.json once the run is concluded; else empty.
    """

    def __init__(self, folder: Path, trainer: Trainer, team: Team | None = None) -> None:
        self.folder, self.trainer, self.team = folder, trainer, team
        self.rounding: float | None = None
        self.result: Mapping[str, object] = {}

    @classmethod
    def begin(
        cls,
        folder: Path,
        config: RunConfig,
        model: LoadedModel,
        task: Task,
        *,
        oracle: Callable[[Space], Oracle] | None = None,
        team: Team | None = None,
    ) -> Run:
        """Start a run in a new or empty folder, or in the folder of a run killed before its first journal line.

        What earlier runs or optimizers moved in the model is read from its checkpoint again.

        Args:
            oracle: see :class:`~forq.runs.trainer.Trainer`.
            team: ranks that tune together; only the chief has a run.

        Raises:
            ConfigError: the folder is not empty, a setting is invalid, or nothing can move.
        """
        if not vacant(folder):
            refuse_taken(folder)
        if folder.is_dir():
            (folder / FILE).unlink(missing_ok=True)  # a kill may have cut the file off; it is copied again
        sweep(folder, BASE)
        restore_base(model)
        kernel = "reference" if set(kernels(model)) <= {"reference"} else config.kernel
        resolved = {"device": str(model.device), "kernel": kernel, "task": fix_options(config.task, task)}
        config = config.model_copy(update=resolved)
        run = cls(folder, make_trainer(folder, config, model, task, oracle, team), team)
        check_destination(
            model.checkpoint.path, folder / "checkpoint", overwrite=True
        )  # checked now rather than after the last step
        first_line = header(run.trainer)
        if team is not None:  # before anything is written: a rank may refuse
            from forq.runs.ranks.session import lead

            lead(team, run.trainer, json.loads(json.dumps(first_line)), Past())
        make(folder / "state")
        for left in [run.journal, *folder.glob("state/*")]:
            left.unlink(missing_ok=True)
        configs.write(run.config, folder / "config.toml")
        if config.profile is not None:
            shutil.copyfile(config.profile, folder / FILE)
        journal.Writer.create(run.journal, first_line).close()
        return run

    @classmethod
    def resume(
        cls,
        folder: Path,
        config: RunConfig,
        model: LoadedModel,
        task: Task,
        *,
        oracle: Callable[[Space], Oracle] | None = None,
        team: Team | None = None,
    ) -> Run:
        """Resume a run that was stopped; what the model moved since it was loaded is read from its checkpoint again.

        Raises:
            JournalError: base, data, law, threads, device or settings differ from the journal's.
        """
        written = journal.read(folder / "journal.jsonl").header
        restore_base(model)
        run = cls(folder, make_trainer(folder, with_settled_method(config, written), model, task, oracle, team), team)
        require_same(folder, written, header(run.trainer), of_ranks=team is not None or (folder / RANKS).exists())
        return run

    @property
    def config(self) -> RunConfig:
        """The resolved settings."""
        return self.trainer.config

    @property
    def model(self) -> LoadedModel:
        """The model that is tuned."""
        return self.trainer.model

    @property
    def task(self) -> Task:
        """The task that the model is tuned on."""
        return self.trainer.task

    @property
    def space(self) -> Space:
        """The coordinates that move."""
        return self.trainer.space

    @property
    def first(self) -> Scored | None:
        """The score before the first step."""
        return self.trainer.first

    @property
    def best(self) -> Scored | None:
        """The best score so far."""
        return self.trainer.best

    @property
    def journal(self) -> Path:
        """Path of the journal."""
        return self.folder / "journal.jsonl"

    @property
    def checkpoint(self) -> Path | None:
        """Path of the tuned checkpoint of a finished run; ``None`` if only adapters move."""
        return self.folder / "checkpoint" if set(self.space.groups) != {"lora"} else None

    @property
    def adapter(self) -> Path | None:
        """Path of the tuned adapters in PEFT's format; ``None`` if no adapter moves."""
        return self.folder / "adapter" if "lora" in self.space.groups else None

    def events(self) -> Iterator[Line | Scored]:
        """Train and record; yield every line and score, including the replayed ones of earlier sessions.

        Raises:
            JournalError: the replay does not rebuild a digest, or another process writes this run.
            RunError: the run cannot go on, see :func:`forq.runs.engine.run`.
        """
        self.trainer.remember()  # before a snapshot is restored
        recorder = Recorder(self.folder, self.trainer)
        try:
            if self.team is not None and not self.team.facts:  # a run that began has told the ranks already
                from forq.runs.ranks.session import lead

                lead(self.team, self.trainer, journal.read(self.journal).header, recorder.past)
            for event in self.trainer.events(recorder.past):
                recorder.record(event)
                if self.team is not None and (isinstance(event, Scored) or event.digest is not None):
                    from forq.runs.ranks.session import record

                    record(self.team, self.folder)
                yield event
        except JournalError as error:
            raise JournalError(f"{self.folder}: {error}") from error
        finally:
            recorder.close()

    def save(self, folder: Path | str) -> None:
        """Write the best checkpoint in the base's format; only tensors that moved differ from the base.

        Adapters are written in PEFT's format: into the folder itself, or into its ``adapter/`` if
        the base moved too.

        Raises:
            ConfigError: no checkpoint was scored yet, or the folder cannot be written.
        """
        adapter = Path(folder) if self.checkpoint is None else Path(folder) / "adapter"
        self._write(Path(folder), adapter, self._made(self._best(), spaces.stored))

    def finish(self) -> None:
        """Save the best into the run's folder, close the journal with it, and load it into the model."""
        free_buffers(self.model)
        masters = self._best()
        best = self._made(masters, spaces.stored)
        self._close_journal(spaces.digest(best))
        self.rounding = rounding_error(self.space.leaves, masters)
        self.space.restore(self._made(masters, spaces.as_stored))
        heap.trim()
        self._write(self.folder / "checkpoint", self.folder / "adapter", best)
        heap.trim()
        moved = changes(self.space.leaves, self._base(), best)
        put_json(self.folder / "moved.json", [asdict(change) for change in moved])
        write_sample(self.folder, self.trainer, "after")

    def _close_journal(self, digest: str) -> None:
        past = journal.read(self.journal)
        if past.lines[-1].kind != "saved":
            assert self.best is not None
            writer = journal.Writer.extend(past)
            notes = {"trained": float(self.best.trained)}
            writer.write(Line(len(past.lines), "saved", (), notes=notes, digest=digest))
            writer.sync()
            writer.close()
        elif past.lines[-1].digest != digest:
            raise JournalError(f"{self.folder}: state/best.safetensors is not what the journal says was saved")

    def _write(self, checkpoint: Path, adapter: Path, tensors: Mapping[str, Tensor]) -> None:
        save(self.model.checkpoint, self.model.adapters, tensors, checkpoint, adapter)

    def _base(self) -> Callable[[str], Iterable[Tensor]]:
        """A function that reads a leaf's tensor before the first step, flat and in parts."""
        model = self.model
        if self.adapter is None:
            return model.checkpoint.parts
        folder = self.config.adapter
        if folder is None:
            begun = initial_factors(model, **lora_settings(self.config))
        else:
            begun = factors_of(peft.opened(model, Path(folder)))
        return lambda name: [begun[name].reshape(-1)] if name in begun else model.checkpoint.parts(name)

    def _best(self) -> Mapping[str, Tensor]:
        """The best masters, each read from the run's folder on demand."""
        if self.best is None:
            raise ConfigError(f"{self.folder}: no validation loss was finite, so there is no best to save")
        best = Snapshot.load(self.folder / "state" / "best.safetensors")
        if best is None or best.step != self.best.trained:
            raise JournalError(
                f"{self.folder}/state/best.safetensors is gone or another run's; --resume makes it again"
            )
        return best.tensors

    def _made(self, masters: Mapping[str, Tensor], convert: Callable[[Leaf, Tensor], Tensor]) -> Mapping[str, Tensor]:
        """The masters after ``convert``, each made on demand; packed integers some rows at a time where they can be."""

        def make(leaf: Leaf) -> Tensor | Rows:
            if not (isinstance(leaf, PackedLeaf) and leaf.by_rows):
                return convert(leaf, masters[leaf.name])
            kept = rows_of(masters, leaf.name)
            first = convert(leaf, kept.make(0, 1))
            shape = (kept.shape[0], *first.shape[1:])
            return Rows(first.dtype, shape, lambda start, stop: convert(leaf, kept.make(start, stop)))

        return Streamed({leaf.name: partial(make, leaf) for leaf in self.space.leaves})
