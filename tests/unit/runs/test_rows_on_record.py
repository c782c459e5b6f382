"""Losses by row go from the oracle through the journal to the tape, and a replay decides the same; also forwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from forq.coordinates.space import Space
from forq.errors import JournalError, RunError
from forq.runs import engine, journal
from forq.runs.journal import Line, Writer
from forq.runs.oracles.local import Local
from forq.runs.oracles.tape import Tape
from forq.scalars.estimators.two_point import TwoPoint
from forq.scalars.losses import Losses, from_means, means, rows
from forq.scalars.protocols import Method
from forq.scalars.rules.sgd import SGD
from forq.tasks.objectives.rewarded import Answer, rewarded
from tests.toys import Toy

ROWS = 5


@dataclass(frozen=True, slots=True)
class MedianOfRows(TwoPoint):
    """The median of the rows' slopes in place of their mean."""

    needs_rows: ClassVar[bool] = True

    def tell(self, step, losses):
        pairs = list(zip(rows(losses)[0::2], rows(losses)[1::2], strict=True))
        slopes = {
            k: sorted((a - b) / (2.0 * self.radius(step, k)) for a, b in zip(up, down, strict=True))[ROWS // 2]
            for k, (up, down) in enumerate(pairs)
        }
        return self.estimate(step, slopes, sum(means(losses)) / len(losses), 0)


METHOD = Method(MedianOfRows(seed=3, eps=1e-2, directions=2), (SGD(0.05),))


def problem():
    leaf = Toy("a", torch.ones(40))
    return leaf, Space([leaf])


def oracle(leaf, space):
    def loss(step):
        noise = torch.randn((ROWS, 40), generator=torch.Generator().manual_seed(step))
        each = ((leaf.x - 1.5 - noise) ** 2).sum(dim=1).double()
        return Losses(float(each.mean()), tuple(each.tolist()))

    return Local(space, lambda step: step, loss)


def test_an_estimate_of_rows_is_the_same_from_the_oracle_and_from_the_journal(tmp_path):
    leaf, space = problem()
    writer = Writer.create(tmp_path / "j", {"law": 1})
    lines = []
    for line in engine.run(space, oracle(leaf, space), METHOD, steps=20):
        writer.write(line)
        lines.append(line)
    writer.close()
    read = journal.read(tmp_path / "j")
    assert [line.losses for line in read.lines] == [line.losses for line in lines], "every bit of every row"
    assert all(len(answer.each) == ROWS for line in read.lines for answer in line.losses)
    assert [line.forwards for line in read.lines] == [4] * 20 and read.forwards == 80
    _, again = problem()
    assert list(engine.run(again, Tape(read.lines), METHOD, steps=20)) == lines
    assert again.digest() == space.digest()
    plain = Method(TwoPoint(seed=3, eps=1e-2, directions=2), METHOD.rules)
    _, other = problem()
    list(engine.run(other, Tape(read.lines), plain, steps=20))
    assert other.digest() != space.digest(), "the rows made the difference"
    now, then = problem()[1], problem()[1]
    mean = [Line(line.step, line.kind, from_means(means(line.losses))) for line in lines]
    list(engine.run(now, Tape(read.lines), plain, steps=20))
    list(engine.run(then, Tape(mean), plain, steps=20))
    assert now.digest() == then.digest(), "an estimate of means does not see rows"


def test_a_tape_of_rows_is_continued_by_the_oracle():
    leaf, space = problem()
    whole = list(engine.run(space, oracle(leaf, space), METHOD, steps=12))
    leaf, again = problem()
    tape = Tape(whole[:7], then=oracle(leaf, again))
    assert list(engine.run(again, tape, METHOD, steps=12)) == whole and again.digest() == space.digest()


def test_without_rows_a_line_is_as_it_always_was():
    body = journal.encode(Line(4, "train", from_means((1.5, math.nan))))
    assert list(body) == ["t", "k", "L", "m"] and body["L"] == [1.5, "nan"]


def test_rows_and_forwards_are_stored_only_where_there_are_any():
    line = Line(4, "train", (Losses(1.5, (1.0, math.inf), 3), Losses(2.0, None, 0)))
    body = journal.encode(line)
    assert body["L"] == [1.5, 2.0] and body["each"] == [[1.0, "inf"], None] and body["forwards"] == [3, 0]
    assert journal.decode(body) == line and line.forwards == 3
    for field in ("each", "forwards"):
        with pytest.raises(JournalError, match="does not hold"):
            journal.decode({**body, field: body[field][:1]})


def test_an_edited_row_is_detected(tmp_path):
    writer = Writer.create(tmp_path / "j", {"law": 1})
    writer.write(Line(0, "train", (Losses(1.5, (1.0, 2.0)),)))
    writer.close()
    text = (tmp_path / "j").read_text()
    (tmp_path / "j").write_text(text.replace('"each":[[1.0,2.0]]', '"each":[[1.0,2.5]]'))
    with pytest.raises(JournalError, match="line 2"):
        journal.read(tmp_path / "j")


class Asked:
    """A task that can be asked; a batch is the answers."""

    def answers(self, model, batch):
        return [Answer("?", text, {}) for text in batch]


def test_rewards_are_losses_by_row():
    task, batch = rewarded(Asked(), lambda prompt, text, row: float(text), "float", ""), ("0.1", "0.7", "0.1")
    assert task.losses(None, batch) == Losses(-(0.1 + 0.7 + 0.1) / 3, (-0.1, -0.7, -0.1))
    assert task.loss(None, batch) == task.losses(None, batch).mean


@pytest.mark.parametrize(
    "answers",
    [from_means((1.0, 2.0)), (Losses(1.0, (1.0,)), Losses(2.0)), (Losses(1.0, (1.0,)), Losses(2.0, (1.0, 3.0)))],
)
def test_an_estimator_of_rows_refuses_an_oracle_without_them(answers):
    with pytest.raises(RunError, match="row losses for every probe"):
        MedianOfRows(seed=3, eps=1e-2).tell(0, answers)
