"""What a calibration finds on functions whose slope, trace and noise are known."""

import math

import numpy as np
import pytest

from forq.errors import RunError
from forq.scalars import calibrations
from forq.scalars.calibrations import GroupRequest, calibrate, rehearsal, trial, trials
from forq.scalars.course import SHAPES, SQUARES
from forq.scalars.losses import from_means
from forq.scalars.protocols import Method

SIZE = 200


def measure(loss, forwards=10_000, eps=None, newton=0.25, directions=8, steps=1000, decay="none", walk=None, checks=0):
    """Drive a calibration by hand; ``loss`` sees the displacement of each probe, ±1 vectors drawn from its seeds.

    A loss that takes two arguments is told the batch too.
    """
    spent = []

    def finish(found, first):
        one = found["all"]
        spent.append((one.eps, one.lr, one.clip, first, one.notes))
        return Method(None, (), one.notes)

    group = GroupRequest("all", ("rademacher",), directions, newton, eps, walk=walk, checks=checks)
    run = calibrate(seed=3, groups=[group], forwards=forwards, steps=steps, decay=decay, finish=finish)
    probes, used, number = next(run), 0, 0
    batched = loss.__code__.co_argcount == 2
    while True:
        used += len(probes)
        losses = []
        for probe in probes:
            x = np.zeros(SIZE)
            for term in probe.terms:
                x += term.weight * np.random.default_rng(term.seed % 2**63).choice((-1.0, 1.0), SIZE)
            losses.append(loss(x, number) if batched else loss(x))
        number += 1
        try:
            probes = run.send(from_means(losses))
        except StopIteration as end:
            return end.value.notes, spent[0], used


def bowl(curvature, slope=0.05, offset=3.0):
    return lambda x: offset + slope * x.sum() + 0.5 * curvature * float(x @ x)


def test_trace_slope_and_step_are_those_of_the_function():
    found, (eps, lr, clip, first, _), used = measure(bowl(curvature=0.1))
    assert eps == 1e-2 and first == 2 + rehearsal.BATCHES
    assert used == 4 + 2 * calibrations.PAIRS + rehearsal.DIRECTIONS + 3 * rehearsal.BATCHES
    assert found["trace"] == pytest.approx(0.1 * SIZE, rel=1e-4)
    # Every direction of this loss bends alike, so a step along N of them bends by little more than one.
    assert found["share"] > 0.9 and found["trace"] < found["bend"] < 1.2 * found["trace"]
    assert 0.2 < found["slope"] / (0.05 * math.sqrt(SIZE)) < 2
    assert lr == pytest.approx(0.25 * 8 * found["share"] / found["bend"])
    assert clip == calibrations.CLIP * found["slope"]


def test_a_noisy_loss_gets_a_larger_radius():
    rng = np.random.default_rng(0)
    clean = bowl(curvature=0.1)
    found, (eps, *_), _ = measure(lambda x: clean(x) + 2e-3 * rng.standard_normal())
    assert eps > 1e-2 and found["signal"] < trial.SIGNAL * 10
    found, (eps, *_), _ = measure(lambda x: clean(x) + 1e-7 * rng.standard_normal())
    assert eps == 1e-2


def test_without_a_sure_trace_the_step_is_a_length():
    found, (_, lr, _, first, _), _ = measure(bowl(curvature=-0.1), forwards=1200)
    assert first == len(trial.EPS) and "share" not in found
    assert lr == pytest.approx(8 * min(calibrations.LENGTH, walk(0.25)) / found["slope"])


def test_doubt_ends_with_the_smallest_radius_that_was_clear_enough():
    found, (eps, *_), _ = measure(bowl(curvature=-0.1))
    assert eps == 1e-2 and found["signal"] > trial.SIGNAL
    blows_up = bowl(curvature=-0.1)
    found, (eps, *_), _ = measure(lambda x: math.inf if abs(x).max() > 0.05 else blows_up(x))
    assert eps == 1e-2


def test_one_pair_is_not_trusted_with_the_trace_and_no_step_is_much_longer_than_the_probe():
    found, (_, lr, *_), used = measure(bowl(curvature=1e-6), forwards=50, steps=5)
    assert used == 5 and lr == pytest.approx(8 * calibrations.LENGTH / found["slope"])
    found, (_, lr, *_), _ = measure(bowl(curvature=1e-3, slope=1.0))
    assert lr == pytest.approx(8 * calibrations.LONGEST * found["eps"] / found["slope"])


def walk(share, directions=8, steps=1000):
    """The longest step of one direction whose noise adds up to no more than WALK over the run."""
    return calibrations.WALK / math.sqrt((1 - share) * directions * steps)


def noisy(noise, curvature=1e-3):
    """A quadratic whose batches add slopes of their own, ``noise`` times as large as the true one's."""

    def loss(x, number):
        own = np.random.default_rng(number).standard_normal(SIZE)
        return 3.0 + 0.05 * float(x @ (1.0 + noise * own)) + 0.5 * curvature * float(x @ x)

    return loss


@pytest.mark.parametrize(("decay", "full"), [("none", 1.0), ("late", 2 / 3), ("linear", 1 / 3)])
def test_a_group_with_a_walk_of_its_own_counts_all_of_a_step(decay, full):
    """Every batch confirms this slope, so nothing of it is noise, and no other bound is near."""
    found, (_, lr, *_), _ = measure(bowl(curvature=0.01), steps=10_000, decay=decay, walk=0.5)
    assert found["share"] > 0.9
    assert lr == pytest.approx(8 * 0.5 / math.sqrt(8 * 10_000 * full) / found["slope"])


def test_the_squares_are_those_of_the_shapes():
    assert SQUARES.keys() == SHAPES.keys()
    for name, shape in SHAPES.items():
        left = (np.arange(4096) + 0.5) / 4096
        assert SQUARES[name] == pytest.approx(np.mean([shape(x) ** 2 for x in left]), rel=1e-5)


@pytest.mark.parametrize(("noise", "share"), [(0.0, 1.0), (1.0, 0.5), (3.0, 0.1)])
def test_what_other_batches_do_not_confirm_is_not_stepped_on(noise, share):
    found, (_, lr, *_), _ = measure(noisy(noise))
    assert found["share"] == pytest.approx(share, abs=max(0.12, 2.5 * found["share_error"]))
    longest = calibrations.LONGEST * found["eps"] / found["slope"]
    confirmed = 0.25 * found["share"] / found["bend"]
    apart = walk(found["share"]) / found["slope"] if found["share"] < 1 else math.inf
    assert lr == pytest.approx(8 * min(longest, confirmed, apart))


def test_a_longer_run_takes_shorter_steps_where_batches_disagree():
    short, (_, lr, *_), _ = measure(noisy(3.0), steps=100)
    long, (_, less, *_), _ = measure(noisy(3.0), steps=10_000)
    assert short["share"] == long["share"] and less < lr
    assert less == pytest.approx(8 * walk(long["share"], steps=10_000) / long["slope"])


@pytest.mark.parametrize("forwards", [60, 100, 300, 1000, 5000, 50_000])
def test_it_spends_a_twentieth_at_most(forwards):
    pairs, count = trials(forwards)
    *_, used = measure(bowl(curvature=-0.1), forwards=forwards)
    assert count * (3 + 2 * pairs) <= used <= max(5, calibrations.SHARE * forwards)


def test_a_radius_the_user_gives_is_kept():
    found, (eps, *_), used = measure(bowl(curvature=0.1), eps=0.007)
    assert eps == found["eps"] == 0.007 and used < 130


def test_one_bad_loss_is_survived_and_only_bad_ones_are_an_error():
    clean = bowl(curvature=0.1)
    seen = iter(range(10_000))
    found, *_ = measure(lambda x: math.nan if next(seen) == 5 else clean(x))
    assert found["trace"] == pytest.approx(0.1 * SIZE, rel=1e-4)
    with pytest.raises(RunError, match="not finite around the starting point"):
        measure(lambda x: math.nan)
    with pytest.raises(RunError, match="no displacement changes the loss"):
        measure(lambda x: 1.0)
    with pytest.raises(RunError, match="no displacement changes the loss"):
        measure(lambda x: 0.0)


def test_an_objective_of_whole_numbers_gets_a_radius_at_which_most_pairs_differ():
    clean = bowl(curvature=0.1, offset=0.0)
    found, (eps, *_), _ = measure(lambda x: round(clean(x) / 0.3))
    assert eps == 1e-1 and found["slope"] > 0


def test_every_group_is_measured_alone_and_gets_its_own_numbers():
    """Two quadratics in one loss: scales with a trace of 20, norms a hundred times as curved."""

    def loss(probe):
        total = 0.0
        for term in probe.terms:
            size, bend = {"scales": (200, 0.1), "norms": (20, 100.0)}[term.group]
            x = term.weight * np.random.default_rng(term.seed % 2**63).choice((-1.0, 1.0), size)
            total += 0.05 * x.sum() + 0.5 * bend * float(x @ x)
        return 3.0 + total

    groups = [
        GroupRequest("scales", ("rademacher",), 4, 0.25),
        GroupRequest("norms", ("rademacher",), 4, 0.5, eps=0.02),
    ]
    run = calibrate(
        seed=3, groups=groups, forwards=2000, steps=200, decay="none", finish=lambda found, first: (found, first)
    )
    probes, used = next(run), []
    while True:
        assert len({term.group for probe in probes for term in probe.terms}) == 1
        used.append(len(probes))
        try:
            probes = run.send(from_means(loss(probe) for probe in probes))
        except StopIteration as end:
            found, first = end.value
            break
    assert first == len(used) and sum(used) <= 100
    for name, trace in (("scales", 20.0), ("norms", 2000.0)):
        assert found[name].notes["trace"] == pytest.approx(trace, rel=1e-3)
    assert found["norms"].eps == 0.02 and found["norms"].lr < 0.1 * found["scales"].lr


SHORT = {"forwards": 50, "steps": 5}
"""A run whose twentieth pays for one pair of probes."""


def test_a_short_run_without_checks_takes_the_step_it_always_took():
    """Journals from before the checks replay with this."""
    found, (_, lr, clip, *_), used = measure(bowl(curvature=5.0), **SHORT)
    assert used == 5 and "bend" not in found
    assert lr == pytest.approx(8 * calibrations.LENGTH / found["slope"])
    assert clip == pytest.approx(calibrations.CLIP * found["slope"])


def test_a_short_run_does_not_step_further_than_the_curvature_of_one_pair_allows():
    """The bowl of a big network: the step of a fixed length would raise the loss by hundreds of its own gain."""
    found, (_, lr, *_), used = measure(bowl(curvature=5.0), **SHORT, checks=3)
    assert used == 8, "one check agreed"
    assert found["bend"] == pytest.approx(5.0 * SIZE, rel=0.2)
    assert lr == pytest.approx(8 * 0.25 * calibrations.UNKNOWN / 1000, rel=0.2)


def test_a_step_is_shortened_by_the_batch_that_bends_most_and_checked_again():
    def loss(x, number):
        return bowl(curvature={0: 1.0, 1: 4.0, 2: 2.0}[number])(x)

    found, (_, lr, *_), used = measure(loss, **SHORT, checks=3)
    assert used == 11
    assert lr == pytest.approx(8 * 0.25 * calibrations.UNKNOWN / found["bend"])
    assert found["bend"] == pytest.approx(4.0 * SIZE, rel=0.2)


def test_checks_end_and_survive_losses_that_are_not_finite():
    def loss(x, number):
        return bowl(curvature=2.0**number)(x) if number != 2 or not x.any() else math.inf

    found, (_, lr, *_), used = measure(loss, **SHORT, checks=3)
    assert used == 5 + 3 * 3 and math.isfinite(lr) and found["bend"] == pytest.approx(8.0 * SIZE, rel=0.2)
    found, (_, lr, *_), used = measure(lambda x, number: math.nan if number else bowl(1.0)(x), **SHORT, checks=2)
    assert used == 11 and "bend" not in found
    assert lr == pytest.approx(8 * 0.25 * calibrations.UNKNOWN / found["trace"] / 16)


def test_a_flat_loss_is_not_shortened_and_a_rehearsed_step_is_not_checked():
    found, (_, lr, *_), _ = measure(bowl(curvature=-0.01), **SHORT, checks=3)
    assert lr <= 8 * calibrations.LENGTH / found["slope"] * 1.001
    with_checks, without = (measure(bowl(curvature=0.1), checks=checks) for checks in (3, 0))
    assert with_checks[:1] == without[:1] and with_checks[2] == without[2]
