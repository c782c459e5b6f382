"""A probe by row shows a row what a move of its direction would write into the scales, in every format."""

from __future__ import annotations

import pytest
import torch

from forq.coordinates.domain import DOMAINS
from forq.coordinates.leaf import ScaleLeaf
from forq.coordinates.space import Space
from forq.errors import RunError
from forq.models.leaves import trainable
from forq.models.load import load
from forq.scalars.moves import OUTPUTS, Move, Term
from forq.tokens.forward import forward_of
from tests.fixtures import CASES, example

IDS = torch.tensor([[1, 5, 9, 2, 40, 33], [7, 8, 3, 2, 11, 30], [4, 4, 9, 12, 13, 1]])
EPS, SEED = 0.05, 7 << 64
MULTIPLIED = ("gptq", "awq", "gguf", "compressed_tensors", "bnb4-rows", "bnb8", "hqq", "torchao", "aqlm")
"""Examples that can be probed by row: a scale belongs to one output, and forq computes it."""


def keys(leaf):
    return leaf.outputs if isinstance(leaf, ScaleLeaf) else None


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(filter(None, case)))
def model(request, tmp_path_factory):
    name, variant = request.param
    made = load(example(name, tmp_path_factory.mktemp(name) / "example", variant), device="cpu")
    return "-".join(filter(None, (name, variant))), made


def test_every_row_sees_its_own_direction(model):
    name, network = model
    space = Space(trainable(network, "scales"), DOMAINS["signed"], shared=keys)
    own = [leaf for leaf in space.leaves if keys(leaf)]
    if not own:
        assert name not in MULTIPLIED
        return
    before, digest = network(IDS).logits, space.digest()
    expected = []
    for row in range(len(IDS)):
        with space.displaced(Move((Term(SEED, EPS, group=OUTPUTS, row=row),))):
            expected.append(network(IDS[row : row + 1]).logits)
    with space.displaced(Move((Term(SEED, EPS, group=OUTPUTS),), by_row=True)):
        with forward_of((0, 1, 2)):
            together = network(IDS).logits
        with forward_of((2, 0)):
            some = network(IDS[[2, 0]]).logits
        with pytest.raises(RunError, match="by_row"):
            network(IDS)
    torch.testing.assert_close(together, torch.cat(expected), rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    torch.testing.assert_close(some, together[[2, 0]], rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    changes = [(a - b).norm() / b.norm() for a, b in zip(together, before, strict=True)]
    assert all(change > 10 * (together - torch.cat(expected)).norm() / before.norm() for change in changes)
    assert not torch.equal(network(IDS).logits, together) and space.digest() == digest
    torch.testing.assert_close(network(IDS).logits, before, rtol=0, atol=0)


def test_a_step_writes_the_sum_of_the_rows_directions(model):
    """In the law's order: each term's product is rounded, then added; the rows' terms are summed before they spread."""
    _, network = model
    space = Space(trainable(network, "scales"), DOMAINS["signed"], shared=keys)
    rows = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
    terms = tuple(Term(SEED + k, 0.01 * (k + n - 1.3), group=OUTPUTS, row=n) for k, n in rows)
    terms += (Term(SEED + 99, 0.003),)
    for master in space._masters:
        total = master.directions.sum(terms, 0, master.size)
        assert total is not None
        one_by_one = None
        for term in master.directions.mine(terms):
            drawn = master.directions.sum([term], 0, master.size)
            one_by_one = drawn if one_by_one is None else one_by_one + drawn
        assert torch.equal(total, one_by_one)
        half = master.size // 2
        parts = [master.directions.sum(terms, 0, half), master.directions.sum(terms, half, master.size)]
        assert torch.equal(torch.cat(parts), total)
