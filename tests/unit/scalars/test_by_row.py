"""Directions of each row's own: the estimate, the step along them, their rows in every forward, and when all share."""

import math
from dataclasses import replace

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
from forq.runs import journal, noise_sharing
from forq.runs.journal import Line, Writer
from forq.runs.oracles.curvature import WithCurvature
from forq.runs.oracles.local import Local
from forq.scalars.directions import owner
from forq.scalars.estimators.by_row import SHARED, ByRow
from forq.scalars.losses import Confirmed, Losses, Own
from forq.scalars.moves import HERE, OUTPUTS, Move, Term
from forq.scalars.quadratic import DAMPINGS
from forq.scalars.rules.newton import Newton
from forq.scalars.rules.sgd import SGD
from forq.tasks.kinds import choice
from forq.tasks.kinds.completion import Row, pack
from forq.tasks.objectives import losses as objective
from forq.tokens.batches import unpacked
from tests import tiny_checkpoints

ROWS = 3
EPS = 0.1
SURE = tuple(Confirmed(-1.0, 0.0, 1.0) for _ in DAMPINGS)


def answers(estimator, step, slope):
    """Losses of 1.0, 2.0, 3.0 whose rows rise by ``slope(seed, row)`` per unit along each direction."""
    found = []
    for probe in estimator.ask(step):
        rises = [0.0] * ROWS
        for term in probe.terms:
            rises = [slope(term.seed, row if probe.by_row else 0) * term.weight for row in range(ROWS)]
        each = tuple(row + 1.0 + rise for row, rise in enumerate(rises))
        found.append(Losses(sum(each) / ROWS, each))
    return found


def slope(seed, row):
    return math.sin(seed % 1009 + 7 * row)


def test_the_estimate_is_the_mean_over_all_directions_each_with_its_slope():
    estimator = ByRow(seed=5, eps=EPS, directions=6)
    estimate = estimator.tell(2, answers(estimator, 2, slope))
    count = SHARED + (6 - SHARED) * ROWS
    assert len(estimate.move.terms) == len({(term.seed, term.row) for term in estimate.move.terms}) == count
    for term in estimate.move.terms:
        assert term.weight == pytest.approx(slope(term.seed, term.row) / count)
    groups = [term.group for term in estimate.move.terms]
    assert groups == [OUTPUTS] * (count - SHARED) + ["all"] * SHARED and estimate.bad == 0


def test_a_probe_whose_rows_are_not_finite_is_dropped_whole():
    estimator = ByRow(seed=5, eps=EPS, directions=4)
    found = answers(estimator, 0, slope)
    found[-1] = Losses(math.nan, (1.0, math.nan, 3.0))
    estimate = estimator.tell(0, found)
    assert len(estimate.move.terms) == SHARED + ROWS and estimate.bad == 1


def test_losses_without_rows_are_refused():
    estimator = ByRow(seed=5, eps=EPS, directions=4)
    with pytest.raises(RunError, match="compares rows"):
        estimator.tell(0, [Losses(1.0)] * estimator.forwards)


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_shared_directions_reach_every_group_and_law(groups):
    eps = {f"g{k}": 0.1 for k in range(groups)}
    estimator = ByRow(seed=1, eps=eps | {"scales": 0.1}, directions=8, noise=("rows:rademacher", "rademacher"))
    met = {(t.group, t.noise) for s in range(20) for p in estimator.ask(s) if not p.by_row for t in p.terms}
    assert met == {(g, law) for g in (*eps, "scales") for law in ("rows:rademacher", "rademacher")}


@pytest.mark.parametrize("curved", [True, False])
def test_a_bad_loss_at_the_point_or_of_all_shared_directions_moves_nothing(curved):
    estimator = ByRow(seed=5, eps=EPS, directions=4)
    own = [Losses(1.0, own=Own((1e-3,) * 3, 1e-4))] * 2
    shared = [Losses(1.0, fisher=(1e-4,)), Losses(1.0, fisher=(0.0, 1e-4))]
    found = [Losses(math.nan), *shared, *own] if curved else [Losses(math.nan)] * 5
    for losses in (found, [Losses(1.0, fisher=(), confirmed=SURE), *[Losses(math.inf)] * 2, *own]):
        estimate = estimator.tell(0, losses)
        assert not estimate.move.terms and not estimate.slopes and estimate.bad


def test_a_single_direction_is_shared():
    assert not any(probe.by_row for probe in ByRow(seed=1, eps=EPS, directions=1).ask(0))
    assert [probe.by_row for probe in ByRow(seed=1, eps=EPS, directions=2).ask(0)] == [False, False, True]


def test_rows_directions_take_the_numbers_of_the_scales():
    assert owner(OUTPUTS, {"scales": 1.0, "norms": 2.0}) == "scales" and owner(OUTPUTS, {"all": 1.0}) == "all"
    estimator = ByRow(seed=1, eps={"scales": 0.1, "norms": 0.5}, directions=4)
    assert [p.terms[0].weight for p in estimator.ask(0) if p.by_row] == [0.1, 0.1]
    estimate = estimator.tell(0, answers(estimator, 0, slope))
    done, _ = SGD({"scales": 2.0, "norms": 3.0}).update(0, estimate, {})
    for before, after in zip(estimate.move.terms, done.move.terms, strict=True):
        assert after.weight == -(3.0 if before.group == "norms" else 2.0) * before.weight


def measured(share, bend=2e-4):
    """A step's losses with curvature: shared slopes that are confirmed by ``share``, and rows that rise by ±1e-3."""
    estimator = ByRow(seed=5, eps=EPS, directions=4)
    confirmed = tuple(Confirmed(-share, 0.0, 1.0) for _ in DAMPINGS)
    own = Own((1e-3, -1e-3, 1e-3), bend)
    first = Losses(1.0, fisher=(), confirmed=confirmed)
    shared = [Losses(1.001, fisher=(1e-4,)), Losses(1.001, fisher=(0.0, 1e-4))]
    return estimator.tell(0, [first, *shared, Losses(1.0, own=own), Losses(1.0, own=own)])


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_a_row_own_slope_counts_for_what_other_rows_would_confirm_of_it(share):
    rule = Newton(0.5, 1e9, 0.0, 10)
    done, _ = rule.update(0, measured(share), rule.init())
    apart = [term for term in done.move.terms if term.group == OUTPUTS]
    expected = 0.5 * share / (share + ROWS * (1.0 - share)) * 1e-3 / 2e-4 * EPS
    assert [term.weight for term in apart] == pytest.approx([-expected, expected, -expected] * 2)
    together = [term.weight for term in done.move.terms if term.group == "all"]
    assert together == pytest.approx([-0.5 * share * (1e-3 - 0.5e-4) / 1e-4 * EPS] * 2, rel=2e-3)


def test_no_step_along_rows_directions_goes_beyond_its_reach():
    rule = Newton(1.0, 1e-3, 0.0, 10)
    done, _ = rule.update(0, measured(1.0), rule.init())
    own = sum((term.weight / EPS) ** 2 * 2e-4 for term in done.move.terms if term.group == OUTPUTS)
    shared = sum((term.weight / EPS) ** 2 * 1e-4 for term in done.move.terms if term.group == "all")
    assert own + shared == pytest.approx(1e-3, rel=1e-2)


def test_rows_that_change_nothing_move_nothing():
    rule = Newton(0.5, 1.0, 0.0, 10)
    done, _ = rule.update(0, measured(1.0, bend=0.0), rule.init())
    assert all(term.weight == 0.0 for term in done.move.terms if term.group == OUTPUTS)


def test_a_journal_holds_what_rows_say(tmp_path):
    estimate_of = [
        Losses(1.0, fisher=(), confirmed=SURE),
        Losses(1.1, fisher=(1e-4,)),
        Losses(1.2, fisher=(2e-5, 1e-4)),
        Losses(1.3, own=Own((1e-3, math.inf), 2e-4)),
        Losses(1.4, own=Own((1e-3, -2e-3), 3e-4)),
    ]
    writer = Writer.create(tmp_path / "journal.jsonl", {})
    writer.write(Line(0, "train", tuple(estimate_of)))
    writer.close()
    assert journal.read(tmp_path / "journal.jsonl").lines[0].losses == tuple(estimate_of)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("by-row")
    tiny_checkpoints.folder(where / "float", "llama-biased")
    quantize(where / "float", where / "q", bits=4, group_size=32)
    return where / "q"


@pytest.fixture
def network(folder):
    model = load(folder, device="cpu")
    return model, Space(trainable(model), DOMAINS["signed"], shared=noise_sharing.outputs)


BATCH = pack([Row(tuple(range(3, 3 + n)), tuple(range(1, n))) for n in (30, 4, 29, 6)], None)
APART = Move((Term(11 << 64, 0.1, group=OUTPUTS),), by_row=True)


def each(model, batch):
    with torch.no_grad():
        return objective.by_row(objective.token_nll(model, batch), batch)


def test_rows_keep_their_directions_however_a_batch_is_cut(network):
    model, space = network
    by_hand = []
    for row in range(4):
        alone = pack([Row(tuple(range(3, 3 + n)), tuple(range(1, n))) for n in (30, 4, 29, 6)][row : row + 1], None)
        with space.displaced(Move((Term(11 << 64, 0.1, group=OUTPUTS, row=row),))):
            by_hand.append(float(objective.token_nll(model, alone).double().sum()))
    for most in (None, 30, 64):
        with space.displaced(APART):
            found = each(model, replace(BATCH, most_tokens=most)) * len(BATCH.target) / 4
        np.testing.assert_allclose(found.numpy(), by_hand, rtol=1e-4)


def test_options_of_a_row_share_its_direction(network):
    model, space = network
    rows = [choice.Row((0, 17, 33, 5), ((7, 8, 9), (7, 11)), 1), choice.Row((0, 5), ((7, 8), (4, 21, 6)), 0)]
    packed = choice.pack(rows)
    assert packed.part is not None and unpacked(packed).numbers == (0, 0, 1, 1)
    with space.displaced(APART), torch.no_grad():
        together, apart = (objective.log_likelihoods(model, b) for b in (packed, replace(unpacked(packed))))
    torch.testing.assert_close(together, apart.view_as(together), rtol=1e-4, atol=1e-4)


def test_a_small_factor_is_not_lost_in_bfloat16(network):
    _, space = network
    layer = space.leaves[0].layer
    y = torch.full((4, 8, layer.out_features), 1.9921875, dtype=torch.bfloat16)  # the last before 2
    layer._multiply(y, (0, 1, 2, 3), lambda rows: torch.full((len(rows), layer.out_features), 1.0 + 3e-3))
    assert float(y.min()) == 2.0, "1 + 3e-3 is 1 in bfloat16"


def test_the_oracle_of_curvature_measures_rows_as_the_plain_one_does(network):
    model, space = network
    probe = Move((Term(11 << 64, 1e-3, group=OUTPUTS),), by_row=True)
    shared = Move((Term(12 << 64, 1e-3),))
    plain = Local(space, lambda step: BATCH, lambda batch: Losses(0.0, tuple(each(model, batch).tolist())))
    here, _, there = plain(0, (HERE, shared, probe))

    def predictions(batch, at, uniform):
        return objective.token_predictions(model, batch, None if at is None else at.drawn, uniform)

    found = WithCurvature(space, lambda step: BATCH, predictions, seed=0)(0, (HERE, shared, probe))
    assert found[2].own is not None and found[2].fisher is None and len(found[1].fisher) == 1
    rises = np.array(there.each) - np.array(here.each)
    # A row's rise still holds its own curvature there; on average it is the mean that the oracle says.
    assert np.abs(rises - found[2].own.rises).max() < 4 * len(rises) * found[2].own.bend
    np.testing.assert_allclose(rises, found[2].own.rises, rtol=0.2, atol=2e-4)
    assert found[2].own.bend > 0.0


def test_scales_that_are_not_probed_by_row_fall_back_to_shared_directions():
    chosen = recipe("qzo").settings
    assert chosen.by_row and chosen.with_shared_directions() == recipe("qzo-shared").settings
    assert chosen.with_shared_directions().with_shared_directions() == chosen.with_shared_directions()
    tree = chosen.model_dump()
    for wrong in ({"unit": "relative"}, {"groups": {"scales": {"unit": "absolute"}}}):
        with pytest.raises(ConfigError, match="unit=signed"):
            type(chosen).model_validate(tree | wrong)
    with pytest.raises(ConfigError, match="step=newton"):
        type(chosen).model_validate(tree | {"rule": tree["rule"] | {"step": "slope"}})
