"""From a method's settings to an estimator with its rules, or to the calibration that measures what they leave open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from forq.errors import ConfigError
from forq.noise.law import law, shrunk, sized
from forq.plugins import registry
from forq.recipes.groups import ProbedGroup
from forq.recipes.settings import Settings
from forq.scalars import chain
from forq.scalars.calibrations import GroupRequest, GroupResult, calibrate, most
from forq.scalars.course import Course
from forq.scalars.protocols import Estimator, Method, Plan

WALK = {"lora": 0.8}
"""``GroupRequest.walk`` by kind. Adapters may go far, since the base, which holds what the network knows, stays."""

VOTED = 0.17
"""``GroupRequest.walk`` of steps by vote, which do not become shorter as slopes fall."""


COST = 0.05
"""``GroupRequest.cost`` of a network's own integers (`LOG.md`, 2026-12-01). Adapters have nothing to forget."""


def plan(chosen: Settings, *, seed: int, steps: int, half_range: Mapping[str, float] | None = None) -> Plan:
    """The method that the settings describe, or the calibration that measures what they leave ``auto``.

    Args:
        half_range: half the number of cells of integers, by group: :attr:`forq.coordinates.space.Space.half_range`.

    Raises:
        ConfigError: a kind has a number of its own that the step would not follow.
    """
    if chosen.decisions > 1:
        chosen.require_followed()
    probe, rule, groups = chosen.estimator, chosen.rule, chosen.probed
    make: Callable[..., Estimator] = partial(
        registry.get("estimators", probe.name).make,
        seed=seed,
        directions=probe.directions,
        shrunk=shrunk,
        over_steps=chosen.decisions > 1,
    )

    def finish(results: Mapping[str, GroupResult], first: int) -> Method:
        settled = {group.name: group.numbers(results.get(group.name)) for group in groups}
        course = Course(first, steps, rule.decay)
        # Of whole cells what shrinks is how many coordinates they move, see Directions.
        whole = all(law(noise).shrunk is not None for group in settled.values() for noise in group.noise)
        inputs = chain.Inputs(
            step=rule.step,
            groups=tuple(settled),
            clips={name: group.clip for name, group in settled.items() if group.clip is not None},
            rates={name: group.lr for name, group in settled.items() if group.lr is not None},
            course=course,
            newton=rule.newton,
            whole_cells=whole,
            decisions=chosen.decisions,
        )
        eps = {name: group.eps for name, group in settled.items()}
        noise = {name: group.noise for name, group in settled.items()}
        radii = [result.radius for result in results.values() if result.radius is not None]
        steps_by = {sized(own, r): sized(step, r) for own, step in probe.steps_by.items() for r in radii or [1.0]}
        estimator = make(eps=eps, noise=noise, course=course, phases=probe.phases, step_noise=steps_by)
        return Method(estimator, chain.rules(rule, inputs), _notes(results), chain.patience(rule))

    requests = []
    for part in groups:
        if part.open:
            if part.eps == "auto" and not part.voted and part.unit not in ("relative", "signed", "spread"):
                raise ConfigError(f"estimator.eps: 'auto' tries relative radii, with unit {part.unit!r} give a number")
            share = probe.directions if probe.phases else max(1, probe.directions // len(groups))
            requests.append(
                GroupRequest(
                    name=part.name,
                    noise=part.noise,
                    directions=share,
                    newton=part.newton,
                    eps=None if part.eps == "auto" else part.eps,
                    cells=part.sized,
                    half_range=_half_range(part, half_range or {}),
                    walk=WALK.get(part.kind, VOTED if part.voted else None),
                    cost=COST if chosen.decisions > 2 and part.kind not in WALK else None,
                    checks=rule.checks,
                    radius_only=part.newton_step,
                )
            )
    if not requests:
        return finish({}, 0)
    forwards = steps * make(eps=1.0).forwards
    return lambda: calibrate(
        seed=seed, groups=requests, forwards=forwards, steps=steps, decay=rule.decay, finish=finish
    )


def steps_within(chosen: Settings, forwards: int) -> int:
    """The most training steps that spend no more than so many forward passes, the calibration included.

    Raises:
        ConfigError: not one step does.
    """
    each = registry.get("estimators", chosen.estimator.name).make(
        seed=0, eps=1.0, directions=chosen.estimator.directions
    )
    requests = [group for group in chosen.probed if group.open]
    spare = forwards - sum(most(forwards // len(requests), chosen.rule.checks, group.newton_step) for group in requests)
    if spare < each.forwards:
        raise ConfigError(
            f"forwards: one step takes {each.forwards} forward passes after a calibration of up to "
            f"{forwards - spare}, found a budget of {forwards}; give more, or lower estimator.directions"
        )
    steps: int = spare // each.forwards
    return steps


def _half_range(part: ProbedGroup, by_group: Mapping[str, float]) -> float:
    return min(by_group.values(), default=math.inf) if part.name == "all" else by_group.get(part.name, math.inf)


def _notes(results: Mapping[str, GroupResult]) -> Mapping[str, float] | None:
    """The results for the journal, by name; several groups' are named after the group too."""
    return {
        name if group == "all" else f"{group}.{name}": value
        for group, result in results.items()
        for name, value in result.notes.items()
    } or None
