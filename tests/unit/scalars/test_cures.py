"""The published cures of ZOQO's failures: audits, skipped edges, two roundings, error feedback."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from forq.coordinates.domain import Domain, cells
from forq.coordinates.space import Space
from forq.errors import ConfigError, RunError
from forq.noise.bits import Bits, leaf_id
from forq.noise.law import law
from forq.recipes import recipe
from forq.recipes.plan import plan
from forq.recipes.settings import settings
from forq.runs import engine
from forq.runs.oracles.local import Local
from forq.runs.oracles.tape import Tape
from forq.scalars.estimators.three_point import ThreePoint
from forq.scalars.estimators.two_point import TwoPoint
from forq.scalars.losses import from_means, means
from forq.scalars.moves import Link, Move, Moved, Term
from forq.scalars.protocols import Estimate, Method
from forq.scalars.rules.audit import Audit, at_floor
from forq.scalars.rules.feedback import Feedback
from forq.scalars.rules.sgd import SGD
from forq.scalars.rules.shape import Shape
from forq.scalars.rules.sign_step import SignStep
from tests.toys import Toy

SIZE = 512


class Grid(Toy):
    """Integers from 0 to 15."""

    range = (0, 15)

    def packed(self, x):
        return x.to(torch.uint8)


class Half(Toy):
    """A master that is not float32."""

    def read(self):
        return self.x.clone()


def grid(start=7.0):
    leaf = Grid("a", torch.full((SIZE,), start), group="codes")
    return leaf, Space([leaf], cells)


def drawn(name, seed, size=20_000):
    out = np.empty(size, np.float32)
    law(name).draw(Bits(seed, 1), 0, out)
    return out


def test_quzos_two_roundings_agree_on_average_and_are_independent_given_the_direction():
    z = 0.3 * drawn("gaussian", 5)
    one, two = drawn("rounded:1:0.3", 5), drawn("rounded:2:0.3", 5)
    assert np.array_equal(one, np.round(one)) and not np.array_equal(one, two)
    off_one, off_two = one - z, two - z
    assert abs(off_one.mean()) < 0.02 and abs(off_two.mean()) < 0.02
    assert abs((off_one * off_two).mean()) < 0.02 * off_one.std() * off_two.std() * 5
    assert (one * two).mean() == pytest.approx(0.09, abs=0.015)


def test_a_step_may_draw_its_direction_by_another_law():
    made = TwoPoint(0, 1.0, noise=("rounded:1:0.3",), step_noise={"rounded:1:0.3": "rounded:2:0.3"})
    assert {probe.terms[0].noise for probe in made.ask(0)} == {"rounded:1:0.3"}
    (term,) = made.tell(0, from_means((1.0, 2.0))).move.terms
    assert term.noise == "rounded:2:0.3" and term.seed == made.ask(0)[0].terms[0].seed


def test_a_group_with_a_law_of_its_own_steps_as_it_probes():
    tree = recipe("quzo").settings.model_dump() | {"move": "codes,scales"}
    tree["estimator"] |= {"noise": ["rounded:1"], "step_noise": ["rounded:2"]}
    tree["groups"] = {
        "scales": {"unit": "relative", "noise": ["rademacher"], "eps": 0.1, "lr": 0.1},
        "codes": {"lr": 1.0},
    }
    method = plan(settings(tree), seed=0, steps=4)
    steps = [method.estimator.tell(step, from_means((1.5, 1.0))).move.terms[0] for step in range(2)]
    assert [(term.group, term.noise) for term in steps] == [("codes", "rounded:2"), ("scales", "rademacher")]


def test_two_roundings_on_few_coordinates_move_the_same_ones():
    """Spread over all of them, what the probe moves and what the step moves would hardly meet."""
    z, one, two = (
        drawn("gaussian", 5, 200_000),
        drawn("rounded:1:1:0.02", 5, 200_000),
        drawn("rounded:2:1:0.02", 5, 200_000),
    )
    chosen = (one != 0) | (two != 0)
    assert chosen.mean() < 0.02 and np.abs(one - z)[chosen].max() < 1
    assert (one * two).mean() == pytest.approx(0.02, rel=0.05), "E[Q₁Q₂] is E[z²] on the share"
    one, two = drawn("rounded:1:0.02", 5, 200_000), drawn("rounded:2:0.02", 5, 200_000)
    assert (one * two).mean() < 0.001


def test_feedback_carries_what_rounding_leaves():
    """With nothing forgotten the sum of the steps taken is within half a cell of the sum of the steps wanted."""
    rule = Feedback(keep=64, decay=1.0)
    leaf, space = grid()
    state, wanted, lost = rule.init(), np.zeros(SIZE), 0
    for step in range(40):
        term = Term(step, 0.07, "gaussian", "codes")
        wanted += 0.07 * noise_of(term)
        done, state = rule.update(step, Estimate(Move((term,)), (1.0,), 1.0), state)
        assert done.move.link.kind == "feedback" and len(done.move.link.past) == step
        lost += space.apply(done.move).rounded_away
    taken = leaf.x.numpy() - 7.0
    assert np.abs(taken - wanted).max() <= 0.5 + 1e-4 and np.abs(taken).max() >= 1 and lost > 0


def noise_of(term):
    out = np.empty(SIZE, np.float32)
    law(term.noise).draw(Bits(term.seed, leaf_id("a")), 0, out)
    return out.astype(np.float64)


def test_without_feedback_such_steps_are_rounded_at_random_and_counted():
    _, space = grid()
    moved = space.apply(Move((Term(1, 0.07, "rademacher", "codes"),)))
    assert moved.rounded_away + moved.changed == SIZE and 0 < moved.changed < 0.2 * SIZE


def test_feedback_keeps_so_many_steps_and_refuses_floats():
    rule, state = Feedback(keep=2, decay=0.9), {"past": []}
    for step in range(5):
        done, state = rule.update(step, Estimate(Move((Term(step, 0.1),)), (0.1,), 1.0), state)
    assert [terms[0].seed for terms in done.move.link.past] == [2, 3] and len(state["past"]) == 2
    with pytest.raises(ConfigError, match="take integers"):
        Space([Toy("a", torch.ones(4))], lambda leaf, x: Domain()).apply(done.move)
    with pytest.raises(ConfigError, match=r"rule\.feedback"):
        Feedback(keep=0, decay=0.9)


def test_fitness_in_standard_units_and_by_ranks():
    terms = tuple(Term(k, d) for k, d in enumerate((3.0, -1.0, 0.0, 100.0)))
    estimate = Estimate(Move(terms), (), 1.0)
    scored = np.array([t.weight for t in Shape("zscore").update(0, estimate, {})[0].move.terms]) * 4
    assert scored.mean() == pytest.approx(0) and scored.std() == pytest.approx(1)
    ranked = [t.weight * 4 for t in Shape("rank").update(0, estimate, {})[0].move.terms]
    assert ranked == pytest.approx([1 / 6, -0.5, -1 / 6, 0.5])
    alike = Estimate(Move((Term(0, 2.0), Term(1, 2.0))), (), 1.0)
    for kind in ("zscore", "rank"):
        assert [t.weight for t in Shape(kind).update(0, alike, {})[0].move.terms] == [0.0, 0.0]
    with pytest.raises(ConfigError, match="zscore or rank"):
        Shape("best")
    two = tuple(
        Term(k, d, group=group) for k, (d, group) in enumerate(zip((1.0, 3.0, 100.0, 300.0), "aabb", strict=True))
    )
    apart = Shape("zscore").update(0, Estimate(Move(two), (), 1.0), {})[0].move.terms
    assert [t.weight for t in apart] == [-0.5, 0.5, -0.5, 0.5], "scales and norms are populations of their own"


def audited(target, patience=5, law="sparse:0.02"):
    leaf, space = grid()
    method = Method(ThreePoint(0, 1.0, 2, noise=(law,)), (Audit(), SignStep(None, vote=True)), None, patience)
    return leaf, space, Local(space, lambda step: step, lambda batch: float((leaf.x - target).square().sum())), method


def test_an_audited_step_never_raises_its_batchs_loss():
    leaf, space, oracle, method = audited(9.3)
    losses = [line.losses[0].mean for line in engine.run(space, oracle, method, steps=60)]
    assert all(after <= before for before, after in itertools.pairwise(losses)) and losses[-1] < losses[0]
    for line in engine.run(space, oracle, method, steps=3):
        (here, *sides) = means(line.losses)
        assert float((leaf.x - 9.3).square().sum()) == pytest.approx(min(here, *sides), rel=1e-5)


def test_audits_that_find_nothing_end_the_run_in_good_order_and_it_replays():
    leaf, space, oracle, method = audited(7.0)
    lines = list(engine.run(space, oracle, method, steps=100))
    assert len(lines) == 5 and lines[-1].notes[engine.CERTIFICATE] == 5.0 and lines[-1].digest == space.digest()
    assert (leaf.x == 7.0).all()
    _, again, _, _ = audited(7.0)
    assert list(engine.run(again, Tape(lines), method, steps=100)) == lines
    held = list(engine.run(again, Tape(lines), method, steps=100, held=3))
    assert [line.losses for line in held] == [line.losses for line in lines]


def test_without_patience_moves_that_change_nothing_are_an_error():
    _, space, oracle, method = audited(7.0)
    with pytest.raises(RunError, match="changed not one"):
        list(engine.run(space, oracle, Method(method.estimator, method.rules), steps=100))


def test_a_mask_holds_under_feedback_too():
    leaf = Grid("a", torch.full((SIZE,), 7.0), group="codes")
    mask = (torch.arange(SIZE) % 2).float()
    space = Space([leaf], lambda leaf, x: replace(cells(leaf, x), unit=2.0 * mask))
    past = ((Term(1, 0.2, "rademacher"),),)
    space.apply(Move((Term(2, 0.2, "rademacher"),), Link("feedback", 1.0, past=past)))
    wanted = 0.4 * mask.numpy() * (noise_of(Term(1, 1.0)) + noise_of(Term(2, 1.0)))
    np.testing.assert_array_equal(leaf.x.numpy() - 7.0, np.round(wanted))
    assert (leaf.x[::2] == 7.0).all() and (leaf.x[1::2] != 7.0).any()


def test_steps_below_the_last_place_of_a_bfloat16_master_are_counted():
    leaf = Half("a", torch.ones(SIZE, dtype=torch.bfloat16))
    space = Space([leaf], lambda leaf, x: Domain())
    assert space.apply(Move((Term(7, 1e-4),))) == Moved(0, 0, SIZE, SIZE)
    assert space.apply(Move((Term(7, 1e-1),))).rounded_away == 0


def test_what_is_gaussian_is_not_said_to_be_portable():
    assert not recipe("quzo").settings.portable and recipe("qes").settings.portable


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rule.audit": 9}, "three_point"),
        ({"rule.audit": 9, "estimator.name": "three_point", "rule.step": "slope"}, "vote"),
        ({"rule.feedback": 9}, "slope"),
        ({"rule.shape": "rank"}, "directions"),
        ({"estimator.step_noise": ["rounded:1", "rounded:2"]}, "one law for each"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(changed, says):
    tree = recipe("zoqo").settings.model_dump()
    for name, value in changed.items():
        part, key = name.split(".")
        tree[part][key] = value
    with pytest.raises(ConfigError, match=says):
        settings(tree)


def test_the_floor_is_where_the_last_audits_lose_on_average():
    assert at_floor([1.0] * 300) is None and at_floor([-1.0] * 19) is None
    assert at_floor([1.0] * 270 + [-0.5] * 30) == -0.5
    assert at_floor([-1.0] * 100 + [2.0] * 30) is None
    _, space, oracle, method = audited(7.4, patience=30)
    gains = [line.notes["gain"] for line in engine.run(space, oracle, method, steps=100)]
    assert at_floor(gains) == pytest.approx(sum(gains[-20:]) / 20) and len(gains) == 30


def test_an_audit_takes_a_direction_whose_sides_are_equally_better():
    """Losses that count errors often tie; the best direction was dropped then, and counted towards the certificate."""
    estimator = ThreePoint(0, 1.0, 2, noise=("cells:1",))
    estimate = estimator.tell(0, from_means([-0.5, -0.75, -0.75, -0.625, -0.5]))
    for step, stays in ((0, False), (1, True)):
        audit = Audit() if not stays else Audit(ties=False)  # as runs decided before
        kept = audit.update(step, estimate, {})[0]
        taken = SignStep(None, vote=True).update(step, kept, {})[0]
        assert taken.stays is stays and kept.move.terms[0].seed == estimate.move.terms[0].seed
        assert taken.move.terms[0].weight == (0.0 if stays else 1.0), "the plus side"
    nowhere = estimator.tell(0, from_means([-0.5, -0.5, -0.5, -0.25, -0.25]))
    assert Audit().update(0, nowhere, {})[0].stays
    tree = recipe("zoqo-paper").settings.model_dump()
    tree["estimator"]["name"], tree["rule"]["audit"] = "three_point", 9
    assert plan(settings(tree), seed=0, steps=9).rules[0] == Audit()
    del tree["decisions"]
    assert plan(settings(tree), seed=0, steps=9).rules[0] == Audit(ties=False)


def test_an_estimate_without_gains_passes_an_audit():
    estimate = TwoPoint(0, 1.0, 2).tell(0, from_means((1.0, 2.0, 3.0, 4.0)))
    assert Audit().update(0, estimate, {})[0] == estimate


@pytest.mark.parametrize("skip", (False, True))
def test_sides_are_opposite_where_the_edge_is_skipped(skip):
    leaf = Grid("a", torch.arange(SIZE) % 16.0, group="codes")
    start = leaf.x.clone()
    domain = Domain(low=0, high=15, bounds_probes=True, lattice=True, skip_edge=skip)
    space = Space([leaf], lambda leaf, x: domain)
    seen = []
    for side in (1.0, -1.0):
        with space.displaced(Move((Term(1, side, "uniform_grid:2", "codes"),))):
            seen.append(leaf.x - start)
    assert torch.equal(seen[0], -seen[1]) == skip
    moved = space.apply(Move((Term(1, 1.0, "uniform_grid:2", "codes"),)))
    assert (moved.cut == 0) == skip and moved.changed > 0


def test_a_shrinking_step_of_signs_shrinks_its_length():
    move = Move((Term(0, -3.0),), Link("sign", 0.5))
    assert move.scaled(0.5) == Move((Term(0, -3.0),), Link("sign", 0.25))
    assert (
        SGD(0.1).update(0, Estimate(Move((Term(0, 2.0),)), (2.0,), 1.0), {})[0].move.scaled(0.5).terms[0].weight == -0.1
    )
