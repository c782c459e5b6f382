"""A copy of a run that another engine's worker holds: it follows the run's losses and measures for it."""

from __future__ import annotations

from collections.abc import Sequence

from forq.runs import engine
from forq.runs.divided import Numbers
from forq.runs.journal import Line
from forq.runs.oracle_choice import measures
from forq.runs.oracles.tape import Tape
from forq.runs.trainer import Trainer
from forq.scalars.losses import Losses
from forq.scalars.moves import Move

_NEVER = 1 << 62


class Replica:
    """Decides by the run's recorded losses, step by step, and so stays equal to it bit for bit.

    Args:
        trainer: with a model of this process, and the settings, base and data of the run.

    Example:
        >>> replica = Replica(trainer)                                # doctest: +SKIP
        >>> replica.follow(answers_of_all_steps_so_far)               # doctest: +SKIP
        >>> parts = replica.measure(step, probes, places)             # doctest: +SKIP
    """

    def __init__(self, trainer: Trainer) -> None:
        self._space = trainer.space
        self._own = measures(trainer.config, trainer.model, trainer.task, trainer.space)
        self._lines: list[Line] = []
        steps = trainer.config.steps
        self._run = engine.run(trainer.space, Tape(self._lines), trainer.plan, steps=steps, digest_every=_NEVER)

    def __len__(self) -> int:
        """Number of steps that it has followed."""
        return len(self._lines)

    def follow(self, answers: Sequence[Sequence[Losses]]) -> None:
        """Take the next steps: decide each by the run's losses, and move.

        Raises:
            JournalError: the losses are not those of this run's next steps.
        """
        for losses in answers:
            self._lines.append(Line(len(self._lines), "train", tuple(losses)))
            next(self._run)

    def measure(self, step: int, probes: Sequence[Move], places: Sequence[int]) -> list[Numbers]:
        """The parts of some probes of the next step, for :meth:`forq.runs.divided.Divided.join`."""
        return list(self._own.measure(step, probes, places))

    def checksum(self) -> int:
        """Of the masters, to compare with other replicas'."""
        return self._space.checksum()
