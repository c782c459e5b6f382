"""Every estimator found by listing: unbiased by enumeration of all sign vectors, in float64; deaf to bad losses."""

import itertools
import math

import numpy as np
import pytest

from forq.errors import ConfigError
from forq.plugins import registry
from forq.scalars.course import Course
from forq.scalars.losses import Losses

NAMES = registry.names("estimators")
TOGETHER = [name for name in NAMES if not registry.get("estimators", name).make.by_row]
"""Those whose directions all rows share; tests/unit/scalars/test_by_row.py is about the others."""
MEANS = [
    name for name in NAMES if not all(p.by_row for p in registry.get("estimators", name).make(seed=0, eps=1.0).ask(0))
]
"""Those that can estimate from means alone, as by_row does of one direction; the rest: unit/scalars/test_grzo.py."""
SIZE = 6


def test_something_is_listed():
    assert {"two_point", "one_sided"} <= set(NAMES)


def by_row(means):
    """Losses whose rows are all alike, for estimators of means and of rows."""
    return [Losses(mean, (mean,) * 3) for mean in means]


def quadratic(rng):
    root = rng.standard_normal((SIZE, SIZE))
    return root @ root.T, rng.standard_normal(SIZE), rng.standard_normal(SIZE)


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_mean_over_all_sign_vectors_is_the_gradient(name, eps):
    """On a quadratic the mean over all 2ⁿ directions must be the gradient, whatever ε: a factor would show."""
    hessian, slope, x = quadratic(np.random.default_rng(0))

    def loss(point):
        return 0.5 * point @ hessian @ point + slope @ point

    gradient = hessian @ x + slope
    total = np.zeros(SIZE)
    signs = [np.array(z) for z in itertools.product((-1.0, 1.0), repeat=SIZE)]
    estimator = registry.get("estimators", name).make(seed=1, eps=eps, directions=1)
    for z in signs:
        probes = estimator.ask(0)
        losses = [loss(x + sum((t.weight for t in probe.terms), 0.0) * z) for probe in probes]
        estimate = estimator.tell(0, by_row(losses))
        assert len(estimate.move.terms) == 1
        total += estimate.move.terms[0].weight * z
    np.testing.assert_allclose(total / len(signs), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", TOGETHER)
def test_several_directions_are_averaged(name):
    estimator = registry.get("estimators", name).make(seed=1, eps=0.1, directions=4)
    probes = estimator.ask(3)
    assert len(probes) == estimator.forwards
    slopes = {1: 0.5, 2: -1.0, 3: 2.0, 0: 4.0}
    losses = []
    for probe in probes:
        losses.append(1.0 + sum(slopes[t.seed & 0xFFFFFF] * t.weight for t in probe.terms))
    estimate = estimator.tell(3, by_row(losses))
    weights = {t.seed & 0xFFFFFF: t.weight for t in estimate.move.terms}
    assert weights == pytest.approx({k: d / 4 for k, d in slopes.items()})
    assert estimate.slopes == pytest.approx([slopes[k] for k in range(4)])
    assert len({t.seed for t in estimate.move.terms}) == 4


@pytest.mark.parametrize("name", NAMES)
def test_ask_is_a_pure_function_of_the_step(name):
    estimator = registry.get("estimators", name).make(seed=1, eps=0.1, directions=2)
    assert estimator.ask(5) == estimator.ask(5)
    seeds = [t.seed for step in (0, 1) for probe in estimator.ask(step) for t in probe.terms]
    assert len(set(seeds)) == 4


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_loss_drops_its_direction_and_is_counted(name, bad):
    estimator = registry.get("estimators", name).make(seed=1, eps=0.1, directions=3)
    losses = [1.0 + 0.01 * i for i in range(estimator.forwards)]
    losses[-1] = bad
    estimate = estimator.tell(0, by_row(losses))
    assert len(estimate.move.terms) == len(estimate.slopes) == 2 and estimate.bad == 1
    assert all(math.isfinite(t.weight) for t in estimate.move.terms)
    everything = estimator.tell(0, by_row([bad] * estimator.forwards))
    assert everything.move.terms == () and everything.bad == estimator.forwards


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("setting", [{"eps": 0.0}, {"eps": -1.0}, {"eps": math.nan}, {"directions": 0}])
def test_impossible_settings_are_refused(name, setting):
    with pytest.raises(ConfigError, match="estimator"):
        registry.get("estimators", name).make(**{"seed": 1, "eps": 0.1, "directions": 1, **setting})


@pytest.mark.parametrize("name", TOGETHER)
def test_groups_take_turns_each_with_its_own_radius_and_mean(name):
    estimator = registry.get("estimators", name).make(seed=1, eps={"scales": 0.1, "norms": 0.5}, directions=3)
    seen = []
    for step in range(2):
        slopes, losses = {"scales": 2.0, "norms": -4.0}, []
        for probe in estimator.ask(step):
            assert len(probe.terms) <= 1
            losses.append(1.0 + sum(slopes[t.group] * t.weight for t in probe.terms))
            assert all(abs(t.weight) == {"scales": 0.1, "norms": 0.5}[t.group] for t in probe.terms)
        estimate = estimator.tell(step, by_row(losses))
        for group, d in slopes.items():
            mine = [t.weight for t in estimate.move.terms if t.group == group]
            assert sum(mine) == pytest.approx(d) and len(mine) in (1, 2)
        seen += [t.group for t in estimate.move.terms]
    assert seen == ["scales", "norms"] * 3


@pytest.mark.parametrize("name", MEANS)
def test_fewer_directions_than_groups_reach_every_group_in_turn(name):
    estimator = registry.get("estimators", name).make(
        seed=1, eps={"a": 0.1, "b": 0.1}, directions=1, noise=("rademacher", "gaussian")
    )
    met = [(t.group, t.noise) for step in range(4) for t in estimator.ask(step)[-1].terms]
    assert met == [("a", "rademacher"), ("b", "rademacher"), ("a", "gaussian"), ("b", "gaussian")]


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("directions", [1, 3, 4])
@pytest.mark.parametrize("phases", [False, True])
def test_laws_go_in_turn_over_steps(name, directions, phases):
    def met(**options):
        estimator = registry.get("estimators", name).make(
            seed=1,
            eps=0.1,
            directions=directions,
            noise=("rademacher", "gaussian"),
            course=Course(0, 9),
            phases=phases,
            **options,
        )
        slopes = dict.fromkeys(range(directions), 1.0)
        return [term.noise for step in range(8) for term in estimator.estimate(step, slopes, 1.0, 0).move.terms]

    assert met() == ["rademacher", "gaussian"] * (4 * directions)
    older = met(over_steps=False)
    assert older == (["rademacher", "gaussian"] * directions)[:directions] * 8
    assert (older == met()) == (directions % 2 == 0), "whole turns a step keep their bits"
