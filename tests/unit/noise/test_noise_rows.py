"""Row-shared noise: one value an output row, in either layout of the scales, and independent of the others."""

import numpy as np
import pytest
import torch

from forq.coordinates.domain import free
from forq.coordinates.space import Space
from forq.scalars.moves import Move, Term, direction_seed
from tests.toys import Toy


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), 1), ((6, 4), 0), ((6,), 0)])
def test_coordinates_of_a_row_move_together_and_rows_do_not(shape, axis):
    leaf = Toy("a", torch.zeros(shape), out_axis=axis)
    space = Space([leaf], free)
    rows = []
    for step in range(40):
        with space.displaced(Move((Term(direction_seed(0, step), 1.0, "rows:gaussian"),))):
            x = leaf.x.numpy()
            by_row = np.moveaxis(x, axis, 0).reshape(6, -1)
            assert (by_row == by_row[:, :1]).all()
            rows.append(by_row[:, 0].copy())
    correlation = np.corrcoef(np.array(rows).T) - np.eye(6)
    assert np.abs(correlation).max() < 0.6 and len(np.unique(rows)) == 240
