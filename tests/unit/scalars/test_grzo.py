"""GRZO: slopes of rows in units of their spread, a run that learns and replays, and where it cannot be used."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch

from forq.coordinates.domain import DOMAINS
from forq.coordinates.space import Space
from forq.errors import ConfigError, RunError
from forq.models.convert.quantize import quantize
from forq.models.leaves import trainable
from forq.models.load import load
from forq.recipes import recipe
from forq.recipes.plan import plan
from forq.recipes.settings import settings
from forq.runs import engine, noise_sharing
from forq.runs.oracles.local import Local
from forq.runs.oracles.tape import Tape
from forq.runs.settled import settled_method
from forq.scalars.estimators.grzo import GRZO
from forq.scalars.losses import Losses
from forq.scalars.moves import OUTPUTS
from forq.tasks.kinds.completion import Row, pack
from forq.tasks.objectives import losses as objective
from tests import tiny_checkpoints

ROWS = 3


def of(each):
    return Losses(statistics.fmean(each), tuple(each))


def test_the_estimate_is_the_mean_of_rows_slopes_in_units_of_their_spread():
    estimator = GRZO(seed=4, eps=0.1, directions=2)
    up, down = [(1.2, 2.1, 2.9), (1.0, 2.0, 3.0)], [(1.0, 2.1, 3.0), (1.1, 2.4, 3.0)]
    estimate = estimator.tell(7, [of(each) for pair in zip(up, down, strict=True) for each in pair])
    slopes = [[(a - b) / 0.2 for a, b in zip(*pair, strict=True)] for pair in zip(up, down, strict=True)]
    expected = [d / statistics.pstdev(some) / (2 * ROWS) for some in slopes for d in some]
    assert [t.weight for t in estimate.move.terms] == pytest.approx(expected)
    assert [t.row for t in estimate.move.terms] == [0, 1, 2, 0, 1, 2]
    seeds = [probe.terms[0].seed for probe in estimator.ask(7)[::2]]
    assert [t.seed for t in estimate.move.terms] == [seed for seed in seeds for _ in range(ROWS)]
    assert estimate.slopes == pytest.approx([6 * weight for weight in expected]) and estimate.bad == 0


def test_a_bigger_loss_makes_no_longer_step():
    estimator = GRZO(seed=4, eps=0.1)
    small = estimator.tell(0, [of((1.0, 2.0, 3.0)), of((1.1, 1.9, 2.8))])
    large = estimator.tell(0, [of((100.0, 200.0, 300.0)), of((110.0, 190.0, 280.0))])
    assert [t.weight for t in small.move.terms] == pytest.approx([t.weight for t in large.move.terms])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_loss_drops_its_direction_and_is_counted(bad):
    estimator = GRZO(seed=4, eps=0.1, directions=2)
    good, row = [of((1.0, 2.0, 3.0)), of((1.1, 1.9, 2.8))], Losses(bad, (1.0, bad, 2.0))
    estimate = estimator.tell(0, [*good, good[0], row])
    assert len(estimate.move.terms) == len(estimate.slopes) == ROWS and estimate.bad == 1
    assert not estimator.tell(0, [row] * 4).move.terms


def test_rows_of_equal_slopes_move_nothing():
    estimate = GRZO(seed=4, eps=0.1).tell(0, [of((1.0, 1.0, 1.0)), of((1.0, 1.0, 1.0))])
    assert not estimate.move.terms and not estimate.slopes and not estimate.bad


def test_losses_without_rows_are_refused():
    with pytest.raises(RunError, match="compares rows"):
        GRZO(seed=4, eps=0.1).tell(0, [Losses(1.0)] * 2)


def test_the_mean_over_all_signs_is_each_rows_gradient_over_the_spread():
    """Enumerated in float64: two outputs, of which each row's loss is another linear function."""
    slopes = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]])
    estimator, total = GRZO(seed=4, eps=0.1), np.zeros(2)
    signs = [np.array(z) for z in itertools.product((-1.0, 1.0), repeat=2)]
    draws = list(itertools.product(signs, repeat=ROWS))
    for z in draws:
        seen = [float(d @ own) for d, own in zip(slopes, z, strict=True)]
        answers = [of([1.0 + probe.terms[0].weight * d for d in seen]) for probe in estimator.ask(0)]
        spread = statistics.pstdev(seen)
        if spread > 0.0:
            terms = estimator.tell(0, answers).move.terms
            total += sum(t.weight * spread * own for t, own in zip(terms, z, strict=True))
        else:
            total += np.mean([d * own for d, own in zip(seen, z, strict=True)], axis=0)
    np.testing.assert_allclose(total / len(draws), slopes.mean(axis=0), rtol=1e-9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("grzo")
    tiny_checkpoints.folder(where / "float", "llama")
    quantize(where / "float", where / "q", bits=4, group_size=32)
    return where / "q"


BATCH = pack([Row(tuple(range(3, 3 + n)), tuple(range(1, n))) for n in (30, 24, 29, 16)], None)


def test_a_run_learns_and_replays(folder):
    method = plan(recipe("grzo").settings, seed=5, steps=30)

    def make():
        model = load(folder, device="cpu")
        return model, Space(trainable(model), DOMAINS["signed"], shared=noise_sharing.outputs)

    def each(model):
        with torch.no_grad():
            return objective.by_row(objective.token_nll(model, BATCH), BATCH)

    model, space = make()
    before = float(each(model).mean())
    oracle = Local(space, lambda step: BATCH, lambda batch: of(each(model).tolist()))
    lines = list(engine.run(space, oracle, method, steps=30))
    assert float(each(model).mean()) < before - 0.02
    _, again = make()
    assert list(engine.run(again, Tape(lines), method, steps=30)) == lines and again.digest() == space.digest()


def test_it_is_refused_where_rows_cannot_see_directions_of_their_own(folder):
    leaves = trainable(load(folder, device="cpu"))
    with pytest.raises(ConfigError, match="grzo: expected rows with directions of their own, found none: the task's"):
        settled_method(recipe("grzo").settings, leaves, object(), profile=None)
    assert all(t.group == OUTPUTS for probe in GRZO(seed=1, eps=0.1).ask(0) for t in probe.terms)
    with pytest.raises(ConfigError, match="grzo multiplies outputs"):
        settings(recipe("grzo").settings.model_dump() | {"unit": "relative"})
