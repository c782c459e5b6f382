"""Gauss–Newton in a step's directions: the solve, how far a step goes, and that few rows do not overfit."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from forq.errors import ConfigError, RunError
from forq.scalars.estimators.one_sided import OneSided
from forq.scalars.losses import Confirmed, Losses
from forq.scalars.moves import Move, Term
from forq.scalars.protocols import Estimate
from forq.scalars.quadratic import DAMPINGS, Quadratic, damped, quadratic, scales, solved
from forq.scalars.rules.newton import Newton

SURE = tuple(Confirmed(-1.0, 0.0, 1.0) for _ in DAMPINGS)
NEVER = tuple(Confirmed(0.5, 0.1, 1.0) for _ in DAMPINGS)
RNG = np.random.default_rng(0)


def matrix(size, rank=None):
    root = RNG.standard_normal((size, rank or size + 3))
    return root @ root.T


def triangle(full):
    return tuple(tuple(float(x) for x in row[: k + 1]) for k, row in enumerate(full))


def model(rises, full, confirmed=SURE, kinds=None):
    count = len(rises)
    return Quadratic(tuple(rises), triangle(full), kinds or ("all plain",) * count, (0.01,) * count, confirmed)


def estimate(made):
    terms = tuple(Term(k, 1.0) for k in range(len(made.rises)))
    return Estimate(Move(terms), made.rises, 1.0, quadratic=made)


def weights(done):
    return np.array([term.weight for term in done.move.terms])


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_the_solve_is_that_of_a_library(size):
    full, right = matrix(size), RNG.standard_normal(size)
    np.testing.assert_allclose(solved(triangle(full), right), np.linalg.solve(full, right), rtol=1e-8)


def test_a_matrix_without_full_rank_is_solved_too():
    full = matrix(6, rank=2)
    assert all(map(math.isfinite, solved(triangle(full), RNG.standard_normal(6))))


def test_dampings_lead_from_a_newton_step_to_a_gradient_step():
    full, right = matrix(5), RNG.standard_normal(5)
    kinds = ("a", "b", "a", "b", "b")
    scale = np.array(scales(triangle(full), kinds))
    assert scale[0] == scale[2] == pytest.approx((full[0, 0] + full[2, 2]) / 2)
    for damping in (1e-3, 0.1, 1.0, 10.0):
        wanted = (1 + damping) * np.linalg.solve(full + damping * np.diag(scale), right)
        np.testing.assert_allclose(damped(right, triangle(full), kinds, damping), wanted, rtol=1e-8)
    np.testing.assert_allclose(damped(right, triangle(full), kinds, math.inf), right / scale)
    np.testing.assert_allclose(damped(right, triangle(full), kinds, 1e9), right / scale, rtol=1e-6)


def test_a_direction_that_changes_nothing_is_left_alone():
    full = matrix(3)
    full[1] = full[:, 1] = 0.0
    for damping in DAMPINGS:
        found = damped((1.0, 0.0, -1.0), triangle(full), ("a", "b", "a"), damping)
        assert found[1] == 0.0 and found[0] and found[2]


def test_the_estimator_subtracts_the_curvature_and_drops_what_is_not_finite():
    estimator = OneSided(seed=1, eps=0.1, directions=3)
    here = Losses(1.0, fisher=(), confirmed=SURE)
    rows = [Losses(1.2, fisher=(0.04,)), Losses(math.nan, fisher=(0.0, 0.0)), Losses(0.9, fisher=(0.01, 0.0, 0.06))]
    found = estimator.tell(4, [here, *rows])
    assert found.bad == 1 and found.quadratic is not None
    assert found.quadratic.rises == pytest.approx((0.2 - 0.02, -0.1 - 0.03))
    assert found.quadratic.fisher == ((0.04,), (0.01, 0.06))
    assert found.slopes == pytest.approx((1.8, -1.3))
    assert [term.seed & 0xFFFFFF for term in found.move.terms] == [0, 2]
    assert quadratic([Losses(1.0), Losses(1.2)], [0], ["a"], (0.1,)) is None


def test_without_doubt_a_step_goes_to_the_minimum_in_its_directions():
    full, rises = matrix(4) * 1e-3, RNG.standard_normal(4) * 1e-3
    done, _ = (rule := Newton(1.0, 1e9, 0.0, 10)).update(0, estimate(model(rises, full)), rule.init())
    # All dampings confirm alike, so the largest is taken: along the gradient.
    np.testing.assert_allclose(weights(done), -0.01 * rises / np.trace(full) * 4)
    first = (Confirmed(-2.0, 0.0, 2.0), *SURE[1:])
    done, _ = rule.update(0, estimate(model(rises, full, first)), rule.init())
    near = -0.01 * (1 + DAMPINGS[0]) * np.linalg.solve(full + DAMPINGS[0] * np.trace(full) / 4 * np.eye(4), rises)
    np.testing.assert_allclose(weights(done), near, rtol=1e-8)


def test_the_length_is_what_left_out_rows_confirm_beyond_doubt():
    rises, full = np.array([1e-3, -2e-3]), np.eye(2) * 1e-4
    rule = Newton(0.5, 1e9, 0.0, 10)
    for confirmed, length in (
        (Confirmed(-0.6, 0.0, 1.0), 0.6),
        (Confirmed(-0.6, 0.1, 1.0), 0.4),
        (Confirmed(-0.6, 0.4, 1.0), 0.0),
        (Confirmed(-5.0, 0.1, 1.0), 1.0),
    ):
        done, _ = rule.update(0, estimate(model(rises, full, (confirmed,) * len(DAMPINGS))), rule.init())
        np.testing.assert_allclose(weights(done), -0.01 * 0.5 * length * rises / 1e-4)


def test_what_is_never_confirmed_moves_as_far_as_noise_may():
    full = matrix(3) * 1e-3
    rule = Newton(0.5, 1.0, 0.02, 40)
    state, spent = rule.init(), 0.0
    for step in range(40):
        made = model(RNG.standard_normal(3) * 1e-2, full, NEVER)
        usual = made.bend(made.step(math.inf))
        made = replace(made, confirmed=(Confirmed(0.5, 0.1, usual),) * len(DAMPINGS))
        done, state = rule.update(step, estimate(made), state)
        spent += 0.5 * made.bend(list(weights(done) / 0.01))
    assert 0.01 < spent < 0.06, "three directions: the usual curvature is half of the mean"


def test_no_step_goes_beyond_its_reach():
    full = matrix(3) * 1e-3
    rule = Newton(1.0, 0.05, 0.0, 40)
    made = model(np.array([1.0, -1.0, 2.0]), full)
    done, _ = rule.update(0, estimate(made), rule.init())
    assert made.bend(list(weights(done) / 0.01)) == pytest.approx(0.05)


def test_a_step_is_decided_by_the_steps_before_it():
    rises, full = np.array([1e-3, -2e-3]), np.eye(2) * 1e-4
    rule = Newton(1.0, 1e9, 0.0, 10)
    _, state = rule.update(0, estimate(model(rises, full, NEVER)), rule.init())
    done, state = rule.update(1, estimate(model(rises, full, SURE)), json.loads(json.dumps(state)))
    assert not weights(done).any(), "the batch's own word decided"
    assert state["steps"] == 2 and state["slopes"] == pytest.approx([-0.25] * len(DAMPINGS))


def test_a_step_without_a_finite_loss_at_the_point_stays():
    rule = Newton(1.0, 0.1, 0.0, 10)
    done, state = rule.update(3, Estimate(Move(), (), math.nan), rule.init())
    assert done.move.terms == () and state == rule.init()


def test_losses_without_curvature_are_refused():
    with pytest.raises(RunError, match="measures curvature"):
        Newton(1.0, 0.1, 0.0, 10).update(3, Estimate(Move((Term(1, 1.0),)), (1.0,), 1.0), {})


@pytest.mark.parametrize("bad", [(0.0, 0.1, 0.0), (1.1, 0.1, 0.0), (0.5, 0.0, 0.0), (0.5, 0.1, -1.0)])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match=r"rule\.newton"):
        Newton(*bad, 10)
