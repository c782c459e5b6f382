"""The engine: ask, measure, decide, move, write down. Training, resume and replay are this one loop.

    estimator.ask ─► probes ─► oracle ─► losses ─► estimator.tell ─► rules ─► move ─► space.apply ─► Line

The decision of a step is a function of scalars alone (:func:`decide`); only the oracle's probes and ``apply`` touch
a tensor. A run with open settings begins with a calibration: a generator that yields probes, is sent their losses and
returns the method. A calibration moves nothing; the journal holds its lines too.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from forq.coordinates.space import Space
from forq.errors import RunError
from forq.runs.journal import Line
from forq.scalars.losses import Losses
from forq.scalars.moves import Moved
from forq.scalars.protocols import Estimate, Method, Oracle, Plan, State

MAX_BAD = 10
"""This many steps in a row without a finite loss are an error."""

CERTIFICATE = "certificate"
"""Note of the line that ended a run because this many steps in a row were not worth taking."""


class Decision(NamedTuple):
    """What the losses of a step decide.

    Attributes:
        estimate: what the losses say about the gradient.
        done: the same after the rules; its move is to be applied.
        states: the rules' states after the step.
    """

    estimate: Estimate
    done: Estimate
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step that was taken.

    Attributes:
        line: the step for the journal.
        estimate: what the losses say about the gradient.
        done: the same after the rules; its move was applied.
        states: the rules' states after the step.
    """

    line: Line
    estimate: Estimate
    done: Estimate
    states: tuple[State, ...]

    @property
    def bad(self) -> bool:
        """Whether no direction had finite losses, so that nothing could be decided."""
        return not self.estimate.slopes


def decide(step: int, losses: Sequence[Losses], method: Method, states: tuple[State, ...]) -> Decision:
    """From the losses of a step and the rules' states before it to what is done; a function of scalars alone."""
    estimate = method.estimator.tell(step, losses)
    if not estimate.move.terms:  # every direction was dropped: the rules' states do not change either
        return Decision(estimate, estimate, states)
    done, after = estimate, []
    for rule, state in zip(method.rules, states, strict=True):
        done, state = rule.update(step, done, state)
        after.append(state)
    return Decision(estimate, done, tuple(after))


def step(
    number: int,
    space: Space,
    oracle: Oracle,
    method: Method,
    states: tuple[State, ...],
    *,
    apply: bool = True,
) -> Stepped:
    """Take one step: the primitive that :func:`run` repeats. A step without a finite loss moves nothing.

    Args:
        number: of the step; it keys noise and batch.
        states: the rules' states before the step.
        apply: false where the space already holds this step's move.
    """
    losses = tuple(oracle(number, method.estimator.ask(number)))
    estimate, done, after = decide(number, losses, method, states)
    moved = space.apply(done.move) if apply and done.move.terms else Moved(total=space.size)
    return Stepped(Line(number, "train", losses, moved, _notes(estimate, done)), estimate, done, after)


def calibrate(oracle: Oracle, plan: Plan) -> Generator[Line, None, tuple[Method, int]]:
    """Run a plan's calibration, if it has one; yield its lines, return the method and the number of lines."""
    if isinstance(plan, Method):
        return plan, 0
    calibration, number = plan(), 0
    probes = next(calibration)
    while True:
        losses = tuple(oracle(number, probes))
        try:
            probes = calibration.send(losses)
        except StopIteration as end:
            method: Method = end.value
            yield Line(number, "calibrate", losses, notes=method.notes or {})
            return method, number + 1
        yield Line(number, "calibrate", losses)
        number += 1


def run(
    space: Space,
    oracle: Oracle,
    plan: Plan,
    *,
    steps: int,
    held: int = 0,
    digest_every: int = 100,
    max_bad: int = MAX_BAD,
    max_still: int = 20,
) -> Iterator[Line]:
    """Calibrate if the plan asks for it, then take ``steps`` steps; yield a line for each.

    Args:
        held: the space already holds the moves of the first ``held`` lines (a snapshot): they are decided
            again from their losses, which restores the rules' states, but not applied.
        digest_every: every so many lines, and in the last, a line has a digest of the masters.
        max_bad: this many steps in a row without a finite loss end the run.
        max_still: this many moves in a row that change no coordinate end the run; in its second half only if no
            move ever did.

    A run whose method has ``patience`` ends early, in good order, once so many steps in a row were not taken.

    Raises:
        RunError: the losses are not numbers, or the moves change nothing.
    """
    method, first = yield from calibrate(oracle, plan)
    states, bad, still, stayed, last = method.init(), 0, 0, 0, first + steps - 1
    moved = held > 0
    patience = math.inf if method.patience is None else method.patience
    for number in range(first, first + steps):
        taken = step(number, space, oracle, method, states, apply=number >= held)
        line, states = taken.line, taken.states
        bad = bad + 1 if taken.bad else 0
        stays = method.patience is not None and taken.done.stays and not taken.bad
        stayed = stayed + 1 if stays else 0
        proven = stayed >= patience
        if proven:
            line = replace(line, notes={**line.notes, CERTIFICATE: float(stayed)})
        sealed = number >= held - 1 and (number % digest_every == digest_every - 1 or number == last or proven)
        yield replace(line, digest=space.digest()) if sealed else line
        if proven:
            return
        still = still + 1 if number >= held and not line.moved.changed and not bad and not stays else 0
        if bad == max_bad:
            raise no_finite_loss(bad, number)
        moved = moved or line.moved.changed > 0
        # Late in a run that did move, a step may have shrunk, as it should, below what a lattice resolves.
        if still == max_still and (not moved or 2 * (number - first) < steps):
            raise RunError(
                f"{max_still} steps in a row changed not one of {space.size} coordinates (last step {number}): the "
                "step is smaller than the coordinates can resolve; raise rule.lr, or estimator.eps if all losses agree"
            )


def no_finite_loss(count: int, last: int) -> RunError:
    """The error of so many steps in a row that decided nothing."""
    return RunError(
        f"{count} steps in a row gave no finite loss (last step {last}): the steps are too large or the data is "
        "broken; lower rule.lr or rule.clip, or look at the batch"
    )


def _notes(estimate: Estimate, done: Estimate) -> dict[str, float]:
    """For people: the loss, the root mean square of the slopes before the rules and of the steps after them.

    Where the estimator measures gains, their mean too; and what the rules note.
    """
    return {
        "loss": estimate.loss,
        "slope": _rms(estimate.slopes),
        "stride": (_rms([term.weight for term in done.move.terms]) if done.move.terms else 0.0)
        if estimate.slopes
        else math.nan,
        "bad": float(estimate.bad),
        **({"gain": sum(estimate.gains) / len(estimate.gains)} if estimate.gains else {}),
        **done.notes,
    }


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(x * x for x in values) / len(values)) if values else math.nan
