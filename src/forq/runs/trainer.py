"""Train a model and yield lines and scores; a :class:`~forq.runs.recorder.Recorder` writes the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forq.coordinates.domain import Domains
from forq.coordinates.profile import Profile
from forq.coordinates.space import Space
from forq.errors import ConfigError, JournalError
from forq.models.adapters import peft
from forq.models.adapters.lora import adapted, add_lora, check_free
from forq.models.blocks import within
from forq.models.leaves import trainable
from forq.models.loaded import LoadedModel
from forq.models.quantized import activations, kernels
from forq.recipes.plan import plan
from forq.runs import engine, noise_sharing
from forq.runs.config import RunConfig
from forq.runs.divided import TeamLike
from forq.runs.journal import Line
from forq.runs.metrics import Scored
from forq.runs.oracle_choice import measures
from forq.runs.oracles.tape import Tape
from forq.runs.setbacks import clearly_worse
from forq.runs.settled import settled_method
from forq.runs.watch import Watch
from forq.scalars.protocols import Oracle
from forq.scalars.rules.audit import at_floor
from forq.tasks import Score, Task

DIGEST_EVERY = 100
"""Number of lines between two digests of the masters, and so between two snapshots."""


@dataclass(frozen=True, slots=True)
class Past:
    """The record of a run's earlier sessions.

    Attributes:
        lines: the journal's lines, which are replayed.
        held: number of lines that the masters already include, from a restored snapshot.
        scores: scores on record, by training step; they are not measured again.
    """

    lines: Sequence[Line] = ()
    held: int = 0
    scores: Mapping[int, Scored] = field(default_factory=dict)


class Trainer:
    """Trains a model on a task; :meth:`events` yields every line and score.

    Args:
        profile: factors of the coordinates' units.
        oracle: measures the losses of a step's probes; by default with the model, on the task's
            batches (:mod:`forq.runs.oracle_choice` chooses how).
        watches: data sets that are scored beside the task.
        team: processes that share the probes and the evaluations of this run, this process among them.

    Attributes:
        first, best, last: the score before the first step, the best score and the latest score.
        plan: the method, or the calibration that chooses it.
        certificate: number of audits in a row without a step worth taking, if that ended the run.
        why_shared: why all rows share all directions though the method asks for each row's own; else None.
        start: digest of the adapter that the run goes on from, if any.
        floor: mean gain of the last audits, if steps of this size no longer pay; see
            :mod:`forq.scalars.rules.audit`.
        over: the score that ended the run because a watched data set was beyond its limit, if one did.

    Raises:
        ConfigError: a setting is invalid, or nothing can move.
    """

    def __init__(
        self,
        config: RunConfig,
        model: LoadedModel,
        task: Task,
        *,
        profile: Profile | None = None,
        oracle: Callable[[Space], Oracle] | None = None,
        watches: Sequence[Watch] = (),
        team: TeamLike | None = None,
    ) -> None:
        adapters = _begin_adapters(model, config)
        self.start = None if config.adapter is None else peft.digest(model.adapters)
        leaves = trainable(model, config.method.move, adapters if config.method.lora.alone else ())
        method, self.why_shared = settled_method(config.method, leaves, task, profile=profile)
        config = config.model_copy(update={"method": method})
        leaves = within(leaves, method.blocks)
        self.config, self.model, self.task, self.profile = config, model, task, profile
        if config.activations == "int8" and "int8" not in kernels(model):
            raise ConfigError(
                "activations int8: expected layers whose codes stay, found trainable codes in every eligible layer"
            )
        if (config.activations == "bfloat16") != (activations(model) == "bfloat16"):
            raise ConfigError(
                f"activations: expected a model loaded with {config.activations}, as the run's settings have it, found "
                f"{activations(model)}"
            )
        domain: Domains = config.method.domain
        if profile is not None:
            profile.check(leaves, lambda leaf: leaf.read().shape)
            domain = profile.over(domain)
        shared = noise_sharing.outputs if method.by_row else noise_sharing.layer if method.by_layer else None
        self.space = Space(leaves, domain, shared=shared)
        # The plan is built now, so that an invalid setting is refused before anything is written.
        self.plan = plan(config.method, seed=config.seed, steps=config.steps, half_range=self.space.half_range)
        self._oracle = oracle or self._usual
        self._team = team
        self.first: Scored | None = None
        self.best: Scored | None = None
        self.last: Scored | None = None
        self.certificate: float | None = None
        self.floor: float | None = None
        self.over: Scored | None = None
        self.watches = tuple(watches)
        self._remembers = False

    def remember(self) -> None:
        """Keep what the base predicts on the watched data sets, once; the space must be at its start."""
        if not self._remembers:
            self._remembers = True
            with self.space.as_exported():
                for watch in self.watches:
                    watch.remember(self.model)

    def events(self, past: Past | None = None) -> Iterator[Line | Scored]:
        """Train; yield every line and score, including those of earlier sessions.

        When an event is yielded, the masters are in the state that it describes.

        Raises:
            JournalError: the replay does not rebuild a digest.
            RunError: the run cannot continue; see :func:`forq.runs.engine.run`.
        """
        past = past or Past()
        self.remember()
        steps, every = self.config.steps, self.config.eval_every
        tape = Tape(past.lines, then=self._oracle(self.space))
        lines = engine.run(self.space, tape, self.plan, steps=steps, held=past.held, digest_every=DIGEST_EVERY)
        trained, forwards = 0, 0
        gains: list[float] = []
        yield self._score(past, 0, 0)
        for line in lines:
            forwards += line.forwards
            trained += line.kind == "train"
            if past.held - 1 <= line.step < len(past.lines):
                self._check(past.lines[line.step])
            yield line
            self.certificate = line.notes.get(engine.CERTIFICATE)
            gains += [line.notes["gain"]] if "gain" in line.notes else []
            self.floor = at_floor(gains)
            if trained and (trained % every == 0 or trained == steps or self.certificate is not None):
                yield self._score(past, trained, forwards)
                if self.over is not None:
                    return

    def _usual(self, space: Space) -> Oracle:
        own = measures(self.config, self.model, self.task, space)
        return own if self._team is None else self._team.oracle(own, space)

    def _score(self, past: Past, trained: int, forwards: int) -> Scored:
        scored = past.scores.get(trained)
        if scored is None:
            with self.space.as_exported():
                score = self._evaluated()
                watched = {watch.name: watch.measured(self.model) for watch in self.watches}
            over = next((watch.name for watch in self.watches if watch.exceeded(watched[watch.name])), None)
            best = over is None and score.better_than(self.best.score if self.best else None)
            worse = self.first is not None and clearly_worse(score, self.first.score)
            scored = Scored(trained, forwards, score, best, worse, watched, over)
        self.first, self.last = self.first or scored, scored
        self.over = scored if scored.over is not None else None
        if scored.best:
            self.best = scored
        return scored

    def _evaluated(self) -> Score:
        if self._team is not None:
            return self._team.evaluate(self.task, self.model)
        return self.task.evaluate(self.model, "validation")

    def _check(self, written: Line) -> None:
        """Compare the masters with the digest in a line of the journal."""
        if written.digest is not None and written.kind == "train" and self.space.digest() != written.digest:
            raise JournalError(
                f"step {written.step}: the masters rebuilt from the journal do not match its digest; the journal was "
                "edited, or its noise is not portable and the versions in its header differ from the installed ones"
            )


def lora_settings(config: RunConfig) -> dict[str, Any]:
    """The arguments of :func:`forq.add_lora` for a run's adapters."""
    return {**config.method.lora.model_dump(exclude={"alone"}), "seed": config.seed}


def _begin_adapters(model: LoadedModel, config: RunConfig) -> frozenset[str]:
    """Add adapters to the model if the run moves them, new ones or a folder's; return the names of their layers."""
    if config.adapter is not None:
        check_free(model)
        peft.read(model, Path(config.adapter))
    elif "lora" in config.method.kinds:
        add_lora(model, **lora_settings(config))
    elif adapted(model):
        raise ConfigError(
            "this model was loaded with an adapter, which this run does not move: load the base without it"
        )
    return adapted(model)
