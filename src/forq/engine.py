"""The engine: ask, measure, decide, move, write down. Training, resume and replay are this one loop.

    estimator.ask ─► probes ─► oracle ─► losses ─► estimator.tell ─► rules ─► move ─► space.apply ─► Line

What a step decides is a function of scalars alone (:func:`decide`); only the oracle's probes and ``apply`` touch
a tensor. A run whose settings are not known beforehand begins with a calibration: a generator that is sent the
losses of the probes it yields and returns the method to go on with. It moves nothing and is journalled alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from forq.core import Estimate, Estimator, Move, Moved, Oracle, Rule, RunError, State
from forq.journal import Line
from forq.spaces import Space


@dataclass(frozen=True, slots=True)
class Method:
    """An estimator, the rules that follow it, and what a calibration found on the way (for the journal)."""

    estimator: Estimator
    rules: tuple[Rule, ...]
    found: Mapping[str, float] | None = None

    def init(self) -> tuple[State, ...]:
        """The rules' states before the first step."""
        return tuple(rule.init() for rule in self.rules)


Calibration = Generator[tuple[Move, ...], Sequence[float], Method]
"""Yields the probes of a step, is sent their losses, returns the method."""

Plan = Method | Callable[[], Calibration]


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
        max_still: this many moves in a row that change no coordinate end the run.

    Raises:
        RunError: the losses are not numbers, or the moves change nothing.
    """
    step = 0
    if isinstance(plan, Method):
        method = plan
    else:
        calibration = plan()
        try:
            probes = next(calibration)
            while True:
                losses = tuple(oracle(step, probes))
                try:
                    probes = calibration.send(losses)
                except StopIteration as end:
                    yield Line(step, "calibrate", losses, notes=end.value.found or {})
                    raise
                yield Line(step, "calibrate", losses)
                step += 1
        except StopIteration as end:
            method = end.value
            step += 1
    states, bad, still, last = method.init(), 0, 0, step + steps - 1
    for step in range(step, step + steps):
        losses = tuple(oracle(step, method.estimator.ask(step)))
        measured, done, states = decide(step, losses, method, states)
        move = done.move
        moved = Moved(total=space.size)
        if move.terms and step >= held:
            moved = space.apply(move)
            still = 0 if moved.changed else still + 1
        bad = 0 if move.terms else bad + 1
        sealed = step >= held - 1 and (step % digest_every == digest_every - 1 or step == last)
        yield Line(step, "train", losses, moved, _notes(measured), space.digest() if sealed else None)
        if bad == max_bad:
            raise RunError(
                f"{max_bad} steps in a row gave no finite loss (last step {step}): the steps are too large or the data "
                "is broken; lower rule.lr or rule.clip, or look at the batch"
            )
        if still == max_still:
            raise RunError(
                f"{max_still} steps in a row changed not one of {space.size} coordinates (last step {step}): the step is "
                "smaller than the coordinates can resolve; raise rule.lr, or estimator.eps if both losses are equal"
            )


def _notes(measured: Estimate) -> dict[str, float]:
    slopes = measured.slopes
    size = math.sqrt(sum(d * d for d in slopes) / len(slopes)) if slopes else math.nan
    return {"loss": measured.loss, "slope": size, "bad": float(measured.bad)}
