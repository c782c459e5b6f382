"""Laws every attack obeys: valid images in the ball, an exact account, results that do not depend on company."""

from __future__ import annotations

import numpy as np
import pytest

from forq.attacks.attack import attack, method
from forq.attacks.ball import Ball
from forq.attacks.task import ImageNoise, SearchTask
from forq.plugins import registry
from tests.attacked import Halves, images

NAMES = registry.names("attacks")
BALLS = [("linf", 8), ("l2", 60.0)]
pytestmark = pytest.mark.parametrize("name", NAMES)


def test_there_are_attacks(name):
    assert {"zoqo", "zoqo_paper", "zo_signsgd", "square"} <= set(NAMES)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
@pytest.mark.parametrize("shape", [(8, 8, 3), (7, 5, 1), (1, 1, 1), (2, 9, 3)])
def test_every_point_it_asks_for_is_an_image_of_the_ball(name, norm, eps, shape):
    rng = np.random.default_rng(1)
    x = rng.choice([0, 3, 128, 250, 255], shape).astype(np.uint8)  # many elements at the end of the range
    ball = Ball.around(x, norm, eps)
    search = method(name, {}).search(SearchTask(ball, ImageNoise.of(0, x, 0), 0.0, 60))
    points, moved = next(search), False
    for _ in range(20):
        for point in points:
            assert point.dtype == np.uint8 and point.shape == shape
            assert ball.holds(point.astype(np.int16) - x)
            moved |= bool((point != x).any())
        points = search.send(rng.normal(size=len(points)))
    assert moved


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_the_account_is_exact_and_no_budget_is_exceeded(name, norm, eps):
    victim, (x, y) = Halves(), images(gap=14)
    found = attack(victim, x, y, norm=norm, eps=eps, budget=37, recipe=name, batch=5)
    assert found.queries + found.checks == victim.images
    assert found.queries_per_image.sum() == found.queries and found.queries_per_image.max() <= 37
    assert found.calls == len(victim.calls) and max(victim.calls) <= 5
    lost = found.queries_per_image[~found.success]
    width = 20 if name == "zo_signsgd" else 2
    assert (lost > 37 - width).all(), "an image gave up early"


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_a_success_is_one_by_the_victims_own_word(name, norm, eps):
    victim, (x, y) = Halves(), images(gap=2)
    found = attack(victim, x, y, norm=norm, eps=eps, budget=200, recipe=name)
    assert found.success.any()
    assert (victim(found.images).argmax(axis=1)[found.success] != y[found.success]).all()
    assert (found.images[~found.success] == x[~found.success]).all()
    k = found.images.astype(int) - x
    assert (found.linf == np.abs(k).max(axis=(1, 2, 3))).all() and (found.l0 == (k != 0).sum(axis=(1, 2, 3))).all()
    assert np.allclose(found.l2, np.sqrt((k**2).sum(axis=(1, 2, 3))))
    assert (found.linf if norm == "linf" else found.l2).max() <= eps


def test_an_image_does_not_feel_its_company(name):
    x, y = images(gap=2)
    turn = np.arange(len(x))[::-1]
    one = attack(Halves(), x, y, recipe=name, budget=120, batch=64)
    other = attack(Halves(), x[turn], y[turn], recipe=name, budget=120, batch=3)
    assert (one.images == other.images[turn]).all()
    assert (one.success == other.success[turn]).all()
    assert (one.queries_per_image == other.queries_per_image[turn]).all()
    again = attack(Halves(), x, y, recipe=name, budget=120, seed=1)
    assert (again.images != one.images).any()


def test_only_comparisons_of_losses_count(name):
    """An increasing function of the loss changes nothing, except for a method that uses differences."""
    x, _ = images(gap=2)
    asked = []
    for bend in (lambda loss: loss, lambda loss: np.exp(3 * loss)):
        rng = np.random.default_rng(2)
        search = method(name, {}).search(
            SearchTask(Ball.around(x[0], "linf", 8), ImageNoise.of(0, x[0], 0), bend(0.0), 500)
        )
        points, seen = next(search), []
        for _ in range(15):
            seen.append(np.stack(points))
            points = search.send(bend(rng.normal(size=len(points))))
        asked.append(np.stack(seen))
    assert (asked[0] == asked[1]).all() == (name != "zo_signsgd")
