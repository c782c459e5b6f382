"""The oracle that measures curvature: the exact Fisher matrix, held-out rows, and what a journal holds of them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from forq.coordinates.domain import DOMAINS
from forq.coordinates.space import Space
from forq.noise.bits import Bits
from forq.runs import engine, journal
from forq.runs.journal import Line, Writer
from forq.runs.oracles.curvature import WithCurvature, across, neighbours
from forq.runs.oracles.tape import Tape
from forq.scalars.estimators.one_sided import OneSided
from forq.scalars.losses import means
from forq.scalars.moves import HERE, Move, Term
from forq.scalars.protocols import Method
from forq.scalars.quadratic import DAMPINGS, damped
from forq.scalars.rules.newton import Newton
from forq.tasks.chat.encoding import Row
from forq.tasks.kinds.completion import pack
from forq.tasks.objectives.losses import token_predictions
from forq.tasks.objectives.predictions import drawn_from, of_classes, of_squares
from tests import tiny_lm
from tests.toys import Toy

ROWS, WIDTH, CLASSES = 24, 5, 3
X = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
Y = (X @ torch.randn(WIDTH, CLASSES, generator=torch.Generator().manual_seed(2))).argmax(1)


def classifier():
    """A linear classifier of ``WIDTH`` inputs whose weights are the coordinates, free to go anywhere."""
    leaf = Toy("w", torch.linspace(-1.0, 1.0, WIDTH * CLASSES), dtype=torch.float32)
    space = Space([leaf], DOMAINS["free"])

    def predictions(batch, at, uniform):
        logits = X[batch] @ leaf.x.view(WIDTH, CLASSES)
        return of_classes(nn.functional.cross_entropy(logits, Y[batch], reduction="none"), logits)

    return leaf, space, predictions


def probes(count, eps):
    return [HERE, *(Move((Term(k + 1, eps, "rademacher"),)) for k in range(count))]


def signs(space, count):
    out = []
    for k in range(count):
        with space.displaced(Move((Term(k + 1, 1.0, "rademacher"),))):
            out.append(space.leaves[0].x.clone())
    return [z - space.leaves[0].x for z in out]


def test_the_matrix_is_the_fisher_matrix_in_the_directions():
    leaf, space, predictions = classifier()
    eps, rows = 1e-3, torch.arange(ROWS)
    found = WithCurvature(space, lambda step: rows, predictions, seed=0)(0, probes(4, eps))
    z = torch.stack(signs(space, 4)).double()
    p = (X @ leaf.x.view(WIDTH, CLASSES)).double().softmax(1)
    exact = np.zeros((4, 4))
    for n in range(ROWS):
        jac = torch.stack([X[n].double() @ zk.view(WIDTH, CLASSES) for zk in z])  # (4, classes)
        cov = torch.diag(p[n]) - p[n][:, None] * p[n]
        exact += (jac @ cov @ jac.T).numpy() / ROWS
    for k, answer in enumerate(found[1:]):
        assert len(answer.fisher) == k + 1
        np.testing.assert_allclose(np.array(answer.fisher) / eps**2, exact[k, : k + 1], rtol=2e-2, atol=2e-2)
    assert found[0].fisher == () and len(found[0].confirmed) == len(DAMPINGS)


def test_left_out_rows_say_what_a_loop_by_hand_says():
    _, space, predictions = classifier()
    rows, eps = torch.arange(ROWS), 1e-3
    answers = WithCurvature(space, lambda step: rows, predictions, seed=0)(0, probes(3, eps))

    def part(some):
        return WithCurvature(space, lambda step: some, predictions, seed=0)(0, probes(3, eps))

    def numbers(found):
        full = np.zeros((3, 3))
        for k, answer in enumerate(found[1:]):
            full[k, : k + 1] = full[: k + 1, k] = answer.fisher
        rises = np.array(means(found)[1:]) - found[0].mean - 0.5 * np.diag(full)
        return rises, full

    by_hand = np.zeros((len(DAMPINGS), 2))
    for fold in np.array_split(np.arange(ROWS), 8):
        rest = torch.tensor(np.setdiff1d(np.arange(ROWS), fold))
        rises, full = numbers(part(rest))
        held, bend = numbers(part(torch.tensor(fold)))
        lower = tuple(tuple(row[: k + 1]) for k, row in enumerate(full))
        for place, damping in enumerate(DAMPINGS):
            step = -np.array(damped(rises, lower, ("all rademacher",) * 3, damping))
            by_hand[place] += np.array([held @ step, step @ bend @ step]) / 8
    found = np.array([[x.slope, x.bend] for x in answers[0].confirmed])
    np.testing.assert_allclose(found, by_hand, rtol=5e-2)


def test_tokens_drawn_from_the_model_have_its_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(20_000, -1)
    uniform = torch.from_numpy((Bits(3, 4).uniform32(0, 20_000).astype(np.float64) + 0.5) * 2.0**-32)
    counts = torch.bincount(drawn_from(logits, uniform), minlength=4) / 20_000
    torch.testing.assert_close(counts, logits[0].softmax(0), atol=0.02, rtol=0)
    assert int(drawn_from(logits[:1], torch.tensor([1.0 - 2.0**-33])).max()) <= 3


def test_a_displaced_model_is_asked_for_the_tokens_drawn_at_the_point():
    model, tokenizer = tiny_lm.model("llama").eval(), tiny_lm.tokenizer()
    rows = [tokenizer(f"film number {n} was good")["input_ids"] for n in range(3)]
    batch = pack([Row(tuple(ids), tuple(range(1, len(ids)))) for ids in rows])
    ready = torch.linspace(0.05, 0.95, len(batch.target), dtype=torch.float64)
    with torch.no_grad():
        one = token_predictions(model, batch, None, lambda count: ready[:count])
        two = token_predictions(model, batch, one.drawn, lambda count: pytest.fail("drawn again"))
    assert torch.equal(one.drawn, two.drawn) and torch.equal(one.outputs, two.outputs)
    assert one.mean == two.mean and len(one.each) == 3
    assert float(one.each.mean()) == pytest.approx(one.mean, rel=1e-6)
    assert float(one.weights.sum()) == pytest.approx(1.0)


def test_of_a_squared_error_it_is_the_hessian_of_a_linear_model():
    out, target = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 3, 2)
    found = of_squares((out - target).square().flatten(1).mean(1), out)
    assert found.mean == pytest.approx(float((out - target).square().mean()))
    change = torch.randn(24, generator=torch.Generator().manual_seed(1)).double()
    second = 2.0 * float(change.square().mean())
    assert float((found.weights * change * change).sum()) == pytest.approx(second)


def test_rows_that_are_not_finite_drop_their_direction_and_no_other():
    leaf, space, predictions = classifier()

    def broken(batch, at, uniform):
        found = predictions(batch, at, uniform)
        return (
            found if leaf.x[0] < -0.99 else of_classes(torch.full((ROWS,), math.nan), torch.full((ROWS, 3), math.nan))
        )

    found = WithCurvature(space, lambda step: torch.arange(ROWS), broken, seed=0)(0, probes(6, 1e-2))
    bad = [not math.isfinite(answer.mean) for answer in found]
    assert any(bad) and not all(bad) and not bad[0]
    for answer, gone in zip(found[1:], bad[1:], strict=True):
        assert all(map(math.isfinite, answer.fisher)) and (not any(answer.fisher) or not gone)
    assert all(map(math.isfinite, (x for damping in found[0].confirmed for x in damping)))


def test_a_run_learns_and_its_journal_decides_the_same(tmp_path):
    def made():
        _, space, predictions = classifier()
        method = Method(OneSided(seed=3, eps=1e-3, directions=4), (Newton(0.6, 0.1, 0.01, 40),))
        batch = lambda step: torch.arange(ROWS).roll(5 * step)[:16]  # noqa: E731
        return space, WithCurvature(space, batch, predictions, seed=3), method, predictions

    space, oracle, method, predictions = made()
    before = predictions(torch.arange(ROWS), None, None).mean
    lines = list(engine.run(space, oracle, method, steps=40))
    assert predictions(torch.arange(ROWS), None, None).mean < before - 0.1
    writer = Writer.create(tmp_path / "journal.jsonl", {"x": 1})
    for line in lines:
        writer.write(line)
    writer.close()
    back = journal.read(tmp_path / "journal.jsonl").lines
    assert [line.losses for line in back] == [line.losses for line in lines]
    again, _, method, _ = made()
    assert list(engine.run(again, Tape(back), method, steps=40)) == lines and again.digest() == space.digest()


def test_a_line_whose_triangle_does_not_fit_is_refused():
    body = journal.encode(Line(0, "train", tuple(WithCurvature(*_parts())(0, probes(2, 1e-3)))))
    assert journal.decode(body).losses[2].fisher == tuple(body["F"][1:])
    with pytest.raises(journal.JournalError, match="F holds 2 numbers for 3 losses"):
        journal.decode({**body, "F": body["F"][:2]})


def _parts():
    _, space, predictions = classifier()
    return space, lambda step: torch.arange(ROWS), predictions, 0


def test_parts_across_an_order_hold_rows_of_all_of_it() -> None:
    for rows in (1, 5, 8, 16, 24, 33):
        for parts in (neighbours(rows), across(rows)):
            assert sorted(int(row) for part in parts for row in part) == list(range(rows))
            sizes = [len(part) for part in parts]
            assert len(sizes) == min(8, rows) and max(sizes) - min(sizes) <= 1
    assert [part.tolist() for part in across(16)[:2]] == [[0, 15], [1, 14]]
    assert {float(part.mean()) for part in across(16)} == {7.5}  # what rises along the order is the same in all parts
