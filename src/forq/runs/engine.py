"""The engine: ask, measure, decide, move, write down. Training, resume and replay are this one loop.

    estimator.ask ─► probes ─► oracle ─► losses ─► estimator.tell ─► rules ─► move ─► space.apply ─► Line

What a step decides is a function of scalars alone (:func:`decide`); only the oracle's probes and ``apply`` touch
a tensor. A run whose settings are not known beforehand begins with a calibration: a generator that is sent the
losses of the probes it yields and returns the method to go on with. It moves nothing and is journalled alike.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from forq.coordinates.space import Space
from forq.errors import RunError
from forq.runs.journal import Line
from forq.scalars.moves import Moved
from forq.scalars.protocols import Estimate, Method, Oracle, Plan, State

CERTIFICATE = "certificate"
"""Note of the line with which a run ended because so many steps in a row were found not worth taking."""


def decide(
    step: int, losses: Sequence[float], method: Method, states: tuple[State, ...]
) -> tuple[Estimate, Estimate, tuple[State, ...]]:
    """From the losses of a step to its move: (what was measured, what is to be done, the rules' states)."""
    measured = method.estimator.tell(step, losses)
    if not measured.move.terms:  # every direction was dropped: nothing to learn, and nothing for a rule to see
        return measured, measured, states
    done, after = measured, []
    for rule, state in zip(method.rules, states, strict=True):
        done, state = rule.update(step, done, state)
        after.append(state)
    return measured, done, tuple(after)


def step(
    number: int,
    space: Space,
    oracle: Oracle,
    method: Method,
    states: tuple[State, ...],
    *,
    apply: bool = True,
) -> tuple[Line, tuple[State, ...]]:
    """Take one step: the primitive that :func:`run` repeats.

    Args:
        number: which step; it keys noise and batch.
        apply: false where the space already holds this step's move.

    Returns:
        What happened, and the rules' states after it. A step that gave no finite loss moves nothing.
    """
    losses = tuple(oracle(number, method.estimator.ask(number)))
    measured, done, after = decide(number, losses, method, states)
    moved = space.apply(done.move) if apply and done.move.terms else Moved(total=space.size)
    return Line(number, "train", losses, moved, _notes(measured, done)), after


def calibrate(oracle: Oracle, plan: Plan) -> Generator[Line, None, tuple[Method, int]]:
    """Run a plan's calibration, if it has one; yield its lines, return the method and how many lines there were."""
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
            yield Line(number, "calibrate", losses, notes=method.found or {})
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
    max_bad: int = 10,
    max_still: int = 20,
) -> Iterator[Line]:
    """Calibrate if the plan asks for it, then take ``steps`` steps; yield what happened, line by line.

    Args:
        held: the space already holds the moves of the first ``held`` lines (a snapshot): they are decided
            again from their losses, which restores the rules' states, but not applied.
        digest_every: a digest of the masters stands in every such line, and in the last.
        max_bad: this many steps in a row without one finite loss end the run.
        max_still: this many moves in a row that change no coordinate end the run; late only where none ever did.

    A run whose method has ``patience`` ends early, in good order, once so many steps in a row were not taken.

    Raises:
        RunError: the losses are not numbers, or the moves change nothing.
    """
    method, first = yield from calibrate(oracle, plan)
    states, bad, still, stayed, last = method.init(), 0, 0, 0, first + steps - 1
    moved = held > 0
    patience = math.inf if method.patience is None else method.patience
    for number in range(first, first + steps):
        line, states = step(number, space, oracle, method, states, apply=number >= held)
        bad = bad + 1 if math.isnan(line.notes["slope"]) else 0
        stays = method.patience is not None and line.notes["stride"] == 0.0 and not bad
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
            raise RunError(
                f"{max_bad} steps in a row gave no finite loss (last step {number}): the steps are too large or the "
                "data is broken; lower rule.lr or rule.clip, or look at the batch"
            )
        moved = moved or line.moved.changed > 0
        # Late in a run that did move, a step may have shrunk, as it should, below what a lattice resolves.
        if still == max_still and (not moved or 2 * (number - first) < steps):
            raise RunError(
                f"{max_still} steps in a row changed not one of {space.size} coordinates (last step {number}): the "
                "step is smaller than the coordinates can resolve; raise rule.lr, or estimator.eps if all losses agree"
            )


def _notes(measured: Estimate, done: Estimate) -> dict[str, float]:
    """For people: the loss, and the root mean square of the slopes before and of the steps after the rules.

    Where staying was measured too, what the better sides gain over it on average.
    """
    return {
        "loss": measured.loss,
        "slope": _rms(measured.slopes),
        "stride": (_rms([term.weight for term in done.move.terms]) if done.move.terms else 0.0)
        if measured.slopes
        else math.nan,
        "bad": float(measured.bad),
        **({"gain": sum(measured.gains) / len(measured.gains)} if measured.gains else {}),
    }


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(x * x for x in values) / len(values)) if values else math.nan
