"""From a method's settings to an estimator with its rules, or to the calibration that measures what they leave open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from forq.errors import ConfigError
from forq.plugins import registry
from forq.recipes.groups import ProbedGroup, sized
from forq.recipes.settings import Settings
from forq.scalars import chain
from forq.scalars.calibrations import GroupRequest, GroupResult, calibrate
from forq.scalars.course import Course
from forq.scalars.protocols import Estimator, Method, Plan

WALK = {"lora": 0.8}
"""How far a kind may walk that holds nothing to forget: what a network knows is in its base."""

VOTED = 0.17
"""How far votes may walk, which do not shrink with the slopes as the loss falls."""


def plan(chosen: Settings, *, seed: int, steps: int, room: Mapping[str, float] | None = None) -> Plan:
    """The method that the settings describe, or the calibration that measures what they leave ``auto``.

    Args:
        room: half of the cells integers have, by group, as :attr:`forq.coordinates.space.Space.room` says.
    """
    probe, rule, groups = chosen.estimator, chosen.rule, chosen.probed
    make: Callable[..., Estimator] = partial(
        registry.get("estimators", probe.name).make, seed=seed, directions=probe.directions
    )

    def finish(results: Mapping[str, GroupResult], first: int) -> Method:
        settled = {group.name: group.numbers(results.get(group.name)) for group in groups}
        course = Course(first, steps, rule.decay)
        # Of whole cells what shrinks is how many coordinates they move, see Directions.
        whole = all(law.startswith("cells:") for one in settled.values() for law in one.noise)
        inputs = chain.Inputs(
            step=rule.step,
            groups=tuple(settled),
            clips={name: one.clip for name, one in settled.items() if one.clip is not None},
            rates={name: one.lr for name, one in settled.items() if one.lr is not None},
            course=course,
            whole_cells=whole,
        )
        eps, noise = ({name: getattr(one, what) for name, one in settled.items()} for what in ("eps", "noise"))
        radii = [one.radius for one in results.values() if one.radius is not None]
        steps_by = {sized(law, r): sized(step, r) for law, step in probe.steps_by.items() for r in radii or [1.0]}
        estimator = make(eps=eps, noise=noise, course=course, phases=probe.phases, step_noise=steps_by)
        return Method(estimator, chain.rules(rule, inputs), _notes(results), chain.patience(rule))

    requests = []
    for part in groups:
        if part.open:
            if part.eps == "auto" and not part.voted and part.unit not in ("relative", "spread"):
                raise ConfigError(f"estimator.eps: 'auto' tries relative radii, with unit {part.unit!r} give a number")
            share = probe.directions if probe.phases else max(1, probe.directions // len(groups))
            eps = None if part.eps == "auto" else part.eps
            cells, walk = _room(part, room or {}), WALK.get(part.kind, VOTED if part.voted else None)
            requests.append(
                GroupRequest(part.name, part.noise, share, part.newton, eps, part.sized, cells, walk, rule.checks)
            )
    if not requests:
        return finish({}, 0)
    forwards = steps * make(eps=1.0).forwards
    return lambda: calibrate(
        seed=seed, groups=requests, forwards=forwards, steps=steps, decay=rule.decay, finish=finish
    )


def _room(part: ProbedGroup, room: Mapping[str, float]) -> float:
    return min(room.values(), default=math.inf) if part.name == "all" else room.get(part.name, math.inf)


def _notes(results: Mapping[str, GroupResult]) -> Mapping[str, float] | None:
    """The results for the journal, by name; several groups' are named after the group too."""
    return {
        name if group == "all" else f"{group}.{name}": value
        for group, result in results.items()
        for name, value in result.notes.items()
    } or None
