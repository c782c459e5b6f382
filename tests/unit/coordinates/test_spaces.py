"""The return from a probe is exact, the law of arithmetic is two rounded operations, groups and laziness hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forq.coordinates.domain import Domain, free, relative
from forq.coordinates.space import Space
from forq.errors import ConfigError, JournalError, RunError
from forq.models.load import load
from forq.models.space import space as made
from forq.noise.bits import Bits, leaf_id
from forq.noise.law import law
from forq.scalars.moves import HERE, Move, Term, direction_seed
from tests.fixtures import gptq
from tests.toys import Overlaid, Toy


def some(seed=0, size=1000):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, generator=generator) + 0.01


@settings(max_examples=25)
@given(st.floats(1e-6, 0.5), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_return_is_exact_also_when_the_loss_raises(eps, seed, step):
    leaf = Toy("a", some())
    space = Space([leaf])
    before = leaf.x.clone()
    with pytest.raises(ZeroDivisionError), space.displaced(Move((Term(direction_seed(seed, step), eps),))):
        assert not torch.equal(leaf.x, before)
        raise ZeroDivisionError
    assert torch.equal(leaf.x, before)
    with space.displaced(HERE):
        assert torch.equal(leaf.x, before)


def test_a_thousand_steps_at_lr_zero_move_nothing():
    leaf = Toy("a", some())
    space = Space([leaf])
    before = leaf.x.clone()
    for step in range(1000):
        for side in (1e-3, -1e-3):
            with space.displaced(Move((Term(direction_seed(0, step), side, "gaussian"),))):
                pass
    assert torch.equal(leaf.x, before)


def test_law_of_arithmetic_rounds_each_operation_once():
    x, leaf = some(3), Toy("w", some(3))
    space = Space([leaf], chunk=96)
    terms = tuple(Term(direction_seed(1, 2, k), w, "gaussian") for k, w in enumerate((0.1, -0.03, 0.007)))
    space.apply(Move(terms))
    total = None
    for term in terms:
        z = np.empty(1000, np.float32)
        law(term.noise).draw(Bits(term.seed, leaf_id("w")), 0, z)
        part = np.float32(term.weight) * z
        total = part if total is None else total + part
    unit = x.half().float().numpy()
    expected = x.numpy() + unit * total
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(leaf.x.numpy(), np.maximum(expected, np.float32(1e-7)))


def test_chunks_and_order_of_leaves_change_no_bit():
    def moved(names, chunk=None):
        leaves = [Toy(name, some(len(name), 333)) for name in names]
        space = Space(leaves, chunk=chunk)
        space.apply(Move((Term(direction_seed(1, 2), 0.1), Term(direction_seed(1, 3), 0.2))))
        return space.digest()

    whole = moved(["a", "bb", "ccc"])
    assert whole == moved(["ccc", "a", "bb"])
    assert whole == moved(["a", "bb", "ccc"], chunk=7)


def test_groups_keep_to_themselves():
    scales, norms = Toy("a", some(1)), Toy("b", some(2), group="norms")
    space = Space([scales, norms])
    before = norms.x.clone()
    moved = space.apply(Move((Term(direction_seed(0, 0), 0.1, group="scales"),)))
    assert moved.changed == 1000 and moved.total == 2000 and torch.equal(norms.x, before)
    assert space.groups == ("norms", "scales")
    alone = Toy("a", scales.x.clone())
    both = (Term(direction_seed(0, 1), 0.1, group="scales"), Term(direction_seed(0, 2), 0.2, group="norms"))
    space.apply(Move(both))
    Space([alone], lambda leaf, x: Domain(unit=some(1).half(), keep_sign=True)).apply(Move(both[:1]))
    assert torch.equal(scales.x, alone.x)


def test_lazy_leaf_is_never_displaced_in_storage_and_equals_the_eager_one():
    lazy, eager = Overlaid("a", some()), Toy("a", some())
    move = Move((Term(direction_seed(4, 4), 0.05, "gaussian"),))
    one, two = Space([lazy], free), Space([eager], free)
    before = lazy.x.clone()
    with one.displaced(move), two.displaced(move):
        assert torch.equal(lazy.x, before)
        assert torch.equal(lazy.shown(), eager.x)
    assert lazy.overlay is None
    one.apply(move)
    two.apply(move)
    assert torch.equal(lazy.x, eager.x) and one.digest() == two.digest()


def test_export_rounds_to_the_file_and_shows_what_is_saved():
    leaf = Toy("a", some())
    space = Space([leaf])
    space.apply(Move((Term(direction_seed(0, 0), 1e-3),)))
    master = leaf.x.clone()
    with space.as_exported():
        assert torch.equal(leaf.x, space.exported()["a"].float())
        assert not torch.equal(leaf.x, master)
    assert torch.equal(leaf.x, master)


def test_masked_coordinates_never_move():
    leaf = Toy("a", some())
    mask = torch.arange(1000) % 3 == 0
    space = Space([leaf], lambda leaf, x: Domain(unit=x * mask))
    before = leaf.x.clone()
    moved = space.apply(Move((Term(direction_seed(0, 0), 0.1),)))
    assert torch.equal(leaf.x[~mask], before[~mask]) and moved.changed == int(mask.sum())


def test_misuse_is_refused():
    with pytest.raises(ConfigError, match="nothing here can move"):
        Space([])
    with pytest.raises(ConfigError, match="two leaves"):
        Space([Toy("a", some()), Toy("a", some())])
    space = Space([Toy("a", some())], relative)
    probe = Move((Term(0, 0.1),))
    with space.displaced(probe), pytest.raises(RunError, match="nest"), space.displaced(probe):
        pass
    with space.displaced(probe), pytest.raises(RunError, match="displaced"):
        space.apply(probe)
    with pytest.raises(JournalError, match="other leaves"):
        space.restore({"b": some()})


def test_bfloat16_files_keep_small_steps_on_average():
    x = torch.full((20_000,), 0.5)
    leaf = Toy("a", x.clone(), dtype=torch.bfloat16)
    space = Space([leaf], free)
    space.restore({"a": x * 1.001})
    found = space.exported()["a"]
    assert found.dtype == torch.bfloat16 and len(found.unique()) == 2
    assert abs(found.float().mean() - 0.5005) < 3e-5, "rounding to nearest would give back 0.5 everywhere"
    assert torch.equal(found, space.exported()["a"])
    space.restore({"a": -x})
    assert torch.equal(space.exported()["a"].float(), -x), "what bfloat16 holds exactly is not touched"


def test_a_space_knows_the_unit_it_was_made_in(tmp_path):
    model = load(gptq.example(tmp_path / "example"), "cpu")
    assert made(model).unit == "relative" and made(model, unit="absolute").unit == "absolute"
    assert Space([Toy("a", some())], free).unit is None
