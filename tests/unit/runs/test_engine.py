"""Training, replay and resume are one loop; a tape gives the same bits; what goes wrong is data, then an error."""

import math
from dataclasses import replace

import pytest
import torch

from forq.coordinates.space import Space
from forq.errors import JournalError, RunError
from forq.runs import engine
from forq.runs.journal import Line
from forq.runs.oracles.local import Local
from forq.runs.oracles.tape import Tape
from forq.scalars.estimators.two_point import TwoPoint
from forq.scalars.losses import from_means, means
from forq.scalars.moves import Move, Term, direction_seed
from forq.scalars.protocols import Method
from forq.scalars.rules.clip import Clip
from forq.scalars.rules.sgd import SGD
from tests.toys import Toy

METHOD = Method(TwoPoint(seed=3, eps=1e-2), (Clip(1.0), SGD(0.05)))


def problem():
    leaf = Toy("a", torch.ones(50))
    return leaf, Space([leaf])


def train(steps, loss=None, method=METHOD, **options):
    leaf, space = problem()

    def bowl(batch):
        return float(((leaf.x - 1.5) ** 2).sum() + 0.01 * batch)

    oracle = Local(space, lambda step: step % 7, loss or bowl)
    return leaf, space, engine.run(space, oracle, method, steps=steps, **options)


def test_it_goes_downhill():
    leaf, _, lines = train(400)
    assert len(list(lines)) == 400
    assert ((leaf.x - 1.5) ** 2).sum() < 0.2 * 50 * 0.25


def test_probes_of_a_step_share_their_batch_and_it_is_drawn_once():
    _, space = problem()
    drawn, seen = [], []
    oracle = Local(space, lambda step: drawn.append(step) or step, lambda batch: seen.append(batch) or 0.5 + batch)
    oracle(4, METHOD.estimator.ask(4))
    assert drawn == [4] and seen == [4, 4]


def test_a_tape_rebuilds_every_line_and_digest():
    _, space, lines = train(250)
    written = list(lines)
    _, again = problem()
    played = list(engine.run(again, Tape(written), METHOD, steps=250))
    assert played == written and again.digest() == space.digest()
    assert [line.step for line in written if line.digest] == [99, 199, 249]


@pytest.mark.parametrize("cut", [0, 1, 99, 100, 101, 180])
def test_a_tape_then_the_oracle_is_the_uninterrupted_run(cut):
    _, space, lines = train(200)
    whole = list(lines)
    leaf, again = problem()
    live = Local(again, lambda step: step % 7, lambda batch: float(((leaf.x - 1.5) ** 2).sum() + 0.01 * batch))
    assert list(engine.run(again, Tape(whole[:cut], then=live), METHOD, steps=200)) == whole
    assert again.digest() == space.digest()


def test_a_snapshot_saves_applying_not_deciding():
    _, space, lines = train(200)
    whole = list(lines)
    _, half = problem()
    list(engine.run(half, Tape(whole), METHOD, steps=100))
    _, again = problem()
    again.restore(half.masters())
    played = list(engine.run(again, Tape(whole), METHOD, steps=200, held=100))
    assert again.digest() == space.digest()
    assert played[100:] == whole[100:] and played[99].digest == whole[99].digest


def test_a_tape_answers_its_own_step_only():
    tape = Tape([Line(0, "train", from_means((1.0, 2.0))), Line(1, "train", from_means((3.0, 4.0)))])
    probes = METHOD.estimator.ask(0)
    assert means(tape(1, probes)) == (3.0, 4.0) and means(tape(0, probes)) == (1.0, 2.0)
    with pytest.raises(JournalError, match="ends before step 2"):
        tape(2, probes)
    with pytest.raises(JournalError, match="2 losses where this method asks for 1"):
        tape(0, probes[:1])


def test_a_bad_loss_is_recorded_and_skipped():
    answers = iter([math.nan, 1.0] + [2.0, 1.0] * 9)
    _, _, lines = train(10, loss=lambda batch: next(answers))
    first, *rest = lines
    assert math.isnan(first.losses[0].mean) and first.moved.changed == 0 and first.notes["bad"] == 1
    assert all(line.moved.changed for line in rest)


def test_only_bad_losses_end_the_run():
    _, _, lines = train(100, loss=lambda batch: math.inf, max_bad=5)
    seen = []
    with pytest.raises(RunError, match="5 steps in a row gave no finite loss"):
        seen.extend(lines)


def test_steps_that_change_nothing_end_the_run_and_say_what_to_raise():
    method = Method(TwoPoint(seed=3, eps=1e-2), (SGD(1e-30),))
    _, _, lines = train(100, method=method, max_still=7)
    with pytest.raises(RunError, match=r"7 steps in a row changed not one of 50.*rule\.lr"):
        list(lines)


def test_a_calibration_is_journalled_moves_nothing_and_replays():
    def plan():
        losses = yield (Move((Term(direction_seed(1, 0), 0.1),)), Move())
        more = yield (Move(),)
        return Method(METHOD.estimator, METHOD.rules, {"lr": losses[0].mean - more[0].mean})

    _, space, lines = train(3, method=plan)
    first, second, *rest = written = list(lines)
    assert (first.kind, second.kind, [line.kind for line in rest]) == (
        "calibrate",
        "calibrate",
        ["train"] * 3,
    )
    assert len(first.losses) == 2 and first.moved.changed == 0 and second.notes["lr"] != 0
    _, again = problem()
    assert list(engine.run(again, Tape(written), plan, steps=3)) == written
    assert again.digest() == space.digest()


def test_a_step_that_shrank_below_what_a_lattice_resolves_is_no_error():
    class Shrinking(SGD):
        def update(self, step, estimate, state):
            done, state = super().update(step, estimate, state)
            return replace(done, move=done.move.scaled(1.0 if step < 30 else 1e-30)), state

    method = Method(TwoPoint(5, 0.1), (Shrinking(0.1),))
    _, _, lines = train(60, method=method, max_still=7)
    changed = [line.moved.changed for line in list(lines)]
    assert len(changed) == 60 and not any(changed[30:]) and all(changed[:30])
