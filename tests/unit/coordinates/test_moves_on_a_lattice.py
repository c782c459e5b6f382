"""One type says every method's step: ZOQO's, ZO-SignSGD's, QuZO's and QZO's, against integer arithmetic.

The references draw the same z through the noise law and then work in NumPy, from the papers' equations.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from forq.coordinates.domain import Domain, cells
from forq.coordinates.space import Space
from forq.errors import ConfigError
from forq.noise.bits import Bits, leaf_id
from forq.noise.law import law
from forq.scalars.moves import Link, Move, Moved, Term, direction_seed
from tests.toys import Toy

LEVELS = 15


def lattice(x):
    leaf = Toy("codes", torch.tensor(x, dtype=torch.float32), group="codes")
    return leaf, Space([leaf], lambda leaf, x: Domain(unit=1.0, low=0, high=LEVELS, bounds_probes=True))


def draw(spec, seed, size):
    out = np.empty(size, np.float32)
    law(spec).draw(Bits(seed, leaf_id("codes")), 0, out)
    return out.astype(np.int64)


START = np.arange(64) % (LEVELS + 1)


def test_zoqo_probes_with_u_and_steps_with_its_sign():
    seed, m, n, up = direction_seed(3, 5), 2, 1, True
    leaf, space = lattice(START)
    u = draw(f"uniform_grid:{m}", seed, 64)
    assert set(u) == set(range(-m, m + 1))
    for side in (1, -1):
        with space.displaced(Move((Term(seed, side, f"uniform_grid:{m}"),))):
            np.testing.assert_array_equal(leaf.x.numpy(), np.clip(START + side * u, 0, LEVELS))
        np.testing.assert_array_equal(leaf.x.numpy(), START)
    sign = 1 if up else -1
    moved = space.apply(Move((Term(seed, -n * sign, f"sign:uniform_grid:{m}"),)))
    expected = np.clip(START - n * sign * np.sign(u), 0, LEVELS)
    np.testing.assert_array_equal(leaf.x.numpy(), expected)
    free = START - n * sign * np.sign(u)
    assert moved == Moved(int((expected != START).sum()), int((expected != free).sum()), 64)
    assert moved.cut > 0, "the toy must reach a bound, or the bound is not tested"


def test_zo_signsgd_takes_the_sign_of_the_sum():
    seeds, slopes, lr = [direction_seed(1, 0, k) for k in range(3)], (0.7, -0.4, 0.2), 2.0
    leaf, space = lattice(START)
    total = sum(d * draw("rademacher", s, 64) for d, s in zip(slopes, seeds, strict=True))
    terms = tuple(Term(s, -d) for d, s in zip(slopes, seeds, strict=True))
    space.apply(Move(terms, Link("sign", size=lr)))
    np.testing.assert_array_equal(leaf.x.numpy(), np.clip(START - lr * np.sign(total), 0, LEVELS))


def test_quzo_queries_and_steps_with_two_roundings_of_one_direction():
    seed, slope = direction_seed(9, 1), 0.3
    leaf, space = lattice(START)
    query, step = (draw(f"rounded:{k}", seed, 64) for k in (1, 2))
    assert (query != step).any()
    with space.displaced(Move((Term(seed, 1.0, "rounded:1"),))):
        np.testing.assert_array_equal(leaf.x.numpy(), np.clip(START + query, 0, LEVELS))
    whole = Move((Term(seed, -slope, "rounded:2"),), Link("stochastic", seed=direction_seed(9, 1, 7)))
    moved = space.apply(whole)
    wanted = -slope * step
    drift = leaf.x.numpy() - np.clip(START + wanted, 0, LEVELS)
    assert np.abs(drift).max() < 1 and (leaf.x.numpy() == np.round(leaf.x.numpy())).all()
    assert 0 < moved.changed < 64


def test_stochastic_rounding_is_right_on_average():
    leaf = Toy("codes", torch.zeros(100_000), group="codes")
    space = Space([leaf], lambda leaf, x: Domain())
    seed = direction_seed(2, 2)
    space.apply(Move((Term(seed, 0.25),), Link("stochastic", seed=direction_seed(2, 3))))
    z = draw("rademacher", seed, 100_000)
    x = leaf.x.numpy()
    assert set(x) == {-1.0, 0.0, 1.0}
    assert abs((x * z).mean() - 0.25) < 0.01


def test_qzo_moves_scales_and_keeps_their_sign():
    seed, eps, lr, d = direction_seed(0, 0), 0.1, 3.0, 0.9
    x = torch.tensor([0.5, -0.25, 0.0, 1e-3, 5e-8])
    leaf = Toy("codes", x.clone())
    space = Space([leaf], lambda leaf, x: Domain(unit=x.abs(), floor=1e-7, keep_sign=True))
    z = draw("rademacher", seed, 5).astype(np.float32)
    with space.displaced(Move((Term(seed, eps),))):
        np.testing.assert_allclose(leaf.x.numpy(), x.numpy() * (1 + eps * z * np.sign(x.numpy())), rtol=1e-6)
    moved = space.apply(Move((Term(seed, -lr * d),)))
    after = leaf.x.numpy()
    assert (np.sign(after) == np.sign(x.numpy())).all()
    free = x.numpy() - lr * d * np.abs(x.numpy()) * z
    crossed = (np.sign(free) != np.sign(x.numpy())) & (x.numpy() != 0)
    assert crossed.any() and moved.cut == crossed.sum()
    np.testing.assert_allclose(np.abs(after[crossed]), np.minimum(1e-7, np.abs(x.numpy()[crossed])))


@dataclass
class Packed(Toy):
    """Zero points as a file packs them: two to a byte."""

    range = (0, LEVELS)

    def packed(self, x):
        pairs = x.to(torch.uint8).view(-1, 2)
        return pairs[:, 0] | pairs[:, 1] << 4


def test_a_lattice_leaf_probes_whole_cells_and_rounds_its_steps_at_random():
    seed, slope = direction_seed(4, 1), 0.4
    leaf = Packed("codes", torch.full((40_000,), 8.0), group="zeros", dtype=torch.uint8)
    space = Space([leaf], cells)
    z = draw("sparse:0.1", seed, 40_000)
    assert abs((z != 0).mean() - 0.1) < 0.01 and abs(z.mean()) < 0.01
    with space.displaced(Move((Term(seed, 1.0, "sparse:0.1"),))):
        np.testing.assert_array_equal(leaf.x.numpy(), 8 + z)
    moved = space.apply(Move((Term(seed, -slope, "sparse:0.1"),)))
    change = leaf.x.numpy() - 8
    assert moved.changed == np.count_nonzero(change) and set(change) == {-1.0, 0.0, 1.0}
    assert (change[z == 0] == 0).all() and abs((change * z)[z != 0].mean() + slope) < 0.03
    assert torch.equal(space.exported()["codes"], leaf.packed(leaf.x))
    for step in range(60):
        space.apply(Move((Term(direction_seed(4, step + 2), 9.0, "sparse:0.5"),)))
    assert leaf.x.min() == 0 and leaf.x.max() == LEVELS


def test_cells_are_for_integers():
    with pytest.raises(ConfigError, match="cells"):
        Space([Toy("a", torch.ones(4))], cells)
