"""Methods: what settings mean: an estimator with its rules, or the calibration that finds what they leave open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from forq.errors import ConfigError
from forq.noise.law import law, shrunk, sized
from forq.plugins import registry
from forq.recipes.groups import Part
from forq.recipes.settings import Settings
from forq.scalars.calibrations import Found, Wanted, calibrate
from forq.scalars.course import Course
from forq.scalars.protocols import Method, Plan, Rule
from forq.scalars.rules.audit import Audit
from forq.scalars.rules.clip import Clip
from forq.scalars.rules.decay import Decay
from forq.scalars.rules.feedback import Feedback
from forq.scalars.rules.sgd import SGD
from forq.scalars.rules.shape import Shape
from forq.scalars.rules.sign_step import SignStep

WALK = {"lora": 0.8}
"""How far a kind may walk that holds nothing to forget: what a network knew is in its base."""

VOTED = 0.17
"""How far votes may walk, which do not shrink with the slopes as the loss falls."""


def plan(chosen: Settings, *, seed: int, steps: int, half_range: Mapping[str, float] | None = None) -> Plan:
    """The method the settings mean, or the calibration that finds what they leave ``auto``.

    Args:
        half_range: half the number of cells of integers, by group: :attr:`forq.coordinates.space.Space.half_range`.
    """
    probe, rule, parts = chosen.estimator, chosen.rule, chosen.parts
    make = partial(registry.get("estimators", probe.name).make, seed=seed, directions=probe.directions, shrunk=shrunk)

    def finish(found: Mapping[str, Found], first: int) -> Method:
        settled = {part.name: part.settled(found.get(part.name)) for part in parts}
        course = Course(first, steps, rule.decay)
        clips = {name: one.clip for name, one in settled.items() if one.clip is not None}
        rules: list[Rule] = [Clip(clips)] if clips else []
        rules += [Audit()] if rule.audit else []
        rules += [] if rule.shape == "off" else [Shape(rule.shape)]
        rates = {name: one.lr for name, one in settled.items() if one.lr is not None}
        if rule.step == "slope":
            rules.append(SGD(rates))
        else:
            rules.append(SignStep(rates.get(parts[0].name), rule.step == "vote"))
        # Of whole cells what shrinks is how many coordinates they move, see Directions.
        whole = all(law(noise).shrunk is not None for one in settled.values() for noise in one.noise)
        rules += [Decay(course)] if rule.decay != "none" and rule.step != "vote" and not whole else []
        rules += [Feedback(rule.feedback, rule.feedback_decay)] if rule.feedback else []
        eps, noise = ({name: getattr(one, what) for name, one in settled.items()} for what in ("eps", "noise"))
        radii = [one.notes["radius"] for one in found.values() if "radius" in one.notes]
        steps_by = {sized(own, r): sized(step, r) for own, step in probe.steps_by.items() for r in radii or [1.0]}
        estimator = make(eps=eps, noise=noise, course=course, phases=probe.phases, step_noise=steps_by)
        return Method(estimator, tuple(rules), _notes(found), rule.audit or None)

    wanted = []
    for part in parts:
        if part.open:
            if part.eps == "auto" and not part.voted and part.unit not in ("relative", "spread"):
                raise ConfigError(f"estimator.eps: 'auto' tries relative radii, with unit {part.unit!r} give a number")
            share = probe.directions if probe.phases else max(1, probe.directions // len(parts))
            eps = None if part.eps == "auto" else part.eps
            cells, walk = _half_range(part, half_range or {}), WALK.get(part.kind, VOTED if part.voted else None)
            wanted.append(Wanted(part.name, part.noise, share, part.newton, eps, part.sized, cells, walk, rule.checks))
    if not wanted:
        return finish({}, 0)
    forwards = steps * make(eps=1.0).forwards
    return lambda: calibrate(seed=seed, groups=wanted, forwards=forwards, steps=steps, decay=rule.decay, finish=finish)


def _half_range(part: Part, by_group: Mapping[str, float]) -> float:
    return min(by_group.values(), default=math.inf) if part.name == "all" else by_group.get(part.name, math.inf)


def _notes(found: Mapping[str, Found]) -> Mapping[str, float] | None:
    """What was found, for the journal: by its name, and the group's where there are several."""
    return {
        name if group == "all" else f"{group}.{name}": value
        for group, one in found.items()
        for name, value in one.notes.items()
    } or None
