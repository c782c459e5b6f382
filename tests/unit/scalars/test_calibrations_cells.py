"""What a calibration of whole cells finds on functions whose slope and trace are known, and how the radius shrinks."""

import math

import numpy as np
import pytest

from forq.errors import ConfigError, RunError
from forq.noise.bits import Bits
from forq.noise.law import law, shrunk, sized
from forq.scalars.calibrations import GroupRequest, calibrate
from forq.scalars.calibrations.cells import WALK
from forq.scalars.course import Course
from forq.scalars.directions import Directions
from forq.scalars.losses import from_means
from forq.scalars.moves import Move, Term
from forq.scalars.protocols import Estimate, Method
from forq.scalars.rules.sign_step import SignStep

SIZE = 4096


def drawn(name, seed=0):
    out = np.empty(SIZE, np.float32)
    law(name).draw(Bits(seed, 1), 0, out)
    return out


def measure(loss, forwards=20_000, newton=0.5, decay="none", **group):
    """Drive a calibration by hand; ``loss`` sees the displacement of each probe and the number of its batch."""
    run = calibrate(
        seed=3,
        groups=[GroupRequest("all", ("cells:auto",), 1, newton, cells=True, **group)],
        forwards=forwards,
        steps=forwards // 2,
        decay=decay,
        finish=lambda found, first: Method(None, (), found["all"].notes),
    )
    probes, used, number = next(run), 0, 0
    while True:
        used += len(probes)
        moves = [sum((t.weight * drawn(t.noise, t.seed) for t in probe.terms), np.zeros(SIZE)) for probe in probes]
        losses = [loss(x, number) for x in moves]
        number += 1
        try:
            probes = run.send(from_means(losses))
        except StopIteration as end:
            return end.value.notes, used


def bowl(slope, curvature, noise=0.0):
    def loss(x, number):
        own = noise * np.random.default_rng(number).standard_normal(SIZE)
        return 3.0 + float((slope * g + own) @ x) / math.sqrt(SIZE) + 0.5 * curvature / SIZE * float(x @ x)

    g = np.random.default_rng(99).standard_normal(SIZE)
    return loss


@pytest.mark.parametrize("best", (0.02, 0.3, 5.0))
def test_the_radius_is_the_best_of_the_function_wherever_it_lies(best):
    """σ = 0.2 and τ = 0.8·σ / best, so that √(2/π)·σ / τ is about ``best``."""
    found, used = measure(bowl(0.2, math.sqrt(2 / math.pi) * 0.2 / best))
    assert found["radius"] == pytest.approx(0.5 * best, rel=0.4)
    assert found["share"] > 0.9 and used <= 0.05 * 20_000


def test_noise_of_the_batches_makes_it_shorter():
    clean, _ = measure(bowl(0.2, 0.5))
    noisy, _ = measure(bowl(0.2, 0.5, noise=0.8))
    assert noisy["share"] < 0.5 < clean["share"]
    assert noisy["radius"] < clean["radius"]


@pytest.mark.parametrize(("decay", "full"), [("none", 1.0), ("late", 2 / 3), ("linear", 1 / 3)])
@pytest.mark.parametrize("walk", (None, 0.5))
def test_no_further_than_its_walk_however_much_a_longer_one_promises(walk, decay, full):
    found, _ = measure(bowl(0.2, 1e-3), decay=decay, half_range=8.0, walk=walk)
    assert found["radius"] == pytest.approx((walk or WALK) * 8.0 / math.sqrt(10_000 * full))


@pytest.mark.parametrize("cost", (None, 3e-2, 1e-2))
def test_no_further_than_its_noise_may_cost(cost):
    """Noise of W cells costs ½·W²·τ; the loss is 3 where the run begins, and τ is 0.5."""
    found, _ = measure(bowl(0.2, 0.5), half_range=8.0, cost=cost)
    walked = found["radius"] * math.sqrt(10_000)
    if cost is None:
        assert walked == pytest.approx(WALK * 8.0)
    else:
        assert 0.5 * walked**2 * found["trace"] == pytest.approx(cost * 3.0, rel=1e-2)


def test_losses_that_say_nothing_are_refused():
    with pytest.raises(RunError, match="changes the loss"):
        measure(lambda x, number: 1.0)
    with pytest.raises(RunError, match="not finite"):
        measure(lambda x, number: math.nan)


@pytest.mark.parametrize("radius", (0.01, 0.3, 1.0, 2.4, 16.0))
def test_the_noise_of_cells_is_whole_and_of_that_size(radius):
    z = drawn(f"cells:{radius}")
    assert np.array_equal(z, np.round(z)) and abs(z.mean()) < 4 * radius / math.sqrt(SIZE)
    size = radius if radius < 1 else round(radius)
    many = np.concatenate([drawn(f"cells:{radius}", seed) for seed in range(16)])
    error = size * (1.0 if radius < 1 else 1e-6) / math.sqrt(len(many))
    assert float((many**2).mean()) == pytest.approx(size**2, abs=4 * error)


@pytest.mark.parametrize("radius", ("", "0", "-1", "nan", "40000"))
def test_a_radius_that_cannot_be(radius):
    with pytest.raises(ConfigError, match="takes a radius"):
        law(f"cells:{radius}")


@pytest.mark.parametrize(
    ("spec", "radius", "name"),
    [
        ("cells:auto", 0.12345, "cells:0.1235"),
        ("cells:auto", 3.0, "cells:3"),
        ("rounded:2:auto", 2.5, "rounded:2:2.5"),
        ("rounded:1:auto", 0.1, "rounded:1:1:0.01"),
        ("sign:rounded:1:auto", 0.5, "sign:rounded:1:1:0.25"),
        ("cells:0.5", 0.1, "cells:0.5"),
        ("rademacher", 0.1, "rademacher"),
    ],
)
def test_a_law_left_open_is_given_a_size_and_others_keep_theirs(spec, radius, name):
    assert sized(spec, radius) == name and law(name).sized is None
    if spec != name:
        with pytest.raises(ConfigError, match="left to a calibration"):
            law(spec).draw(Bits(1, 2), 0, np.empty(8, np.float32))


def test_only_cells_shrink_and_never_below_the_least_radius():
    assert [shrunk("cells:0.5", share) for share in (1.0, 0.25, 1e-9)] == [
        "cells:0.5",
        "cells:0.125",
        "cells:0.0009766",
    ]
    assert law(shrunk("cells:4", 1e-9)) and shrunk("cells:40", 0.5) == "cells:20"
    assert {shrunk(spec, 0.5) for spec in ("gaussian", "sign:cells:0.5")} == {"gaussian", "sign:cells:0.5"}


def test_the_radius_shrinks_over_the_run_and_other_laws_do_not():
    course = Course(first=10, steps=100, shape="late")
    made = Directions(0, 1.0, noise=("cells:0.5",), course=course, shrunk=shrunk)
    radii = [float(made.probe(step, 0).terms[0].noise.partition(":")[2]) for step in (10, 59, 85, 109)]
    assert radii == [0.5, 0.5, pytest.approx(0.25), pytest.approx(0.5 / 32, rel=0.6)]
    plain = Directions(0, 1.0, noise=("rademacher",), course=course, shrunk=shrunk)
    assert plain.probe(100, 0).terms[0].noise == "rademacher"


def test_phases_take_one_group_after_the_other():
    made = Directions(0, {"lora": 1.0, "scales": 1.0}, 2, course=Course(first=4, steps=10), phases=True)
    groups = [{made.probe(step, k).terms[0].group for k in range(2)} for step in range(4, 14)]
    assert groups == [{"lora"}] * 5 + [{"scales"}] * 5
    with pytest.raises(ConfigError, match="course"):
        Directions(0, 1.0, phases=True)


def test_a_vote_without_a_length_goes_as_far_as_its_probe():
    estimate = Estimate(Move((Term(1, -0.3, "cells:4"), Term(2, 0.1, "cells:4"), Term(3, 0.0, "cells:4"))), (0.3,), 1.0)
    done, _ = SignStep(None, vote=True).update(0, estimate, {})
    assert [term.weight for term in done.move.terms] == [1.0, -1.0, 0.0] and done.move.link.kind == "identity"
    with pytest.raises(ConfigError, match="length"):
        SignStep(None)
