"""The reference kernel against float64 NumPy, in every shape and branch it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forq.errors import FormatError
from forq.layers.kernels.reference import dequantise, matmul
from forq.layers.layer import Live, Parts
from forq.layers.linear import QuantLinear
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight

ROWS, COLUMNS = 24, 96


def draw(
    group_size: int, sym: bool = False, act_order: bool = False, rows: int = ROWS
) -> tuple[QuantWeight, torch.Tensor, np.ndarray]:
    """A random weight, its scales, and the float64 matrix they mean."""
    rng = np.random.default_rng(group_size + 2 * sym)
    groups = -(-COLUMNS // group_size)
    code = rng.integers(0, 16, (rows, COLUMNS))
    zero = np.full((groups, rows), 8) if sym else rng.integers(0, 17, (groups, rows))
    scale = rng.uniform(0.01, 0.1, (groups, rows)).astype(np.float32)
    group_of = np.arange(COLUMNS) // group_size
    if act_order:
        rng.shuffle(group_of)
    dense = (code - zero[group_of].T) * scale[group_of].T.astype(np.float64)
    packed = torch.from_numpy((code[:, ::2] | code[:, 1::2] << 4).astype(np.uint8))
    order = torch.from_numpy(group_of.astype(np.int32)) if act_order else None
    weight = QuantWeight(packed, torch.from_numpy(zero.astype(np.int8)), 4, group_size, order)
    return weight, torch.from_numpy(scale), dense


@pytest.mark.parametrize("tokens", [1, 3, 63, 64, 130])
@pytest.mark.parametrize("group_size", [2, 3, 16, 32, 40, 96])
@pytest.mark.parametrize(("sym", "act_order"), [(True, False), (False, False), (True, True), (False, True)])
def test_equals_float64(tokens: int, group_size: int, sym: bool, act_order: bool) -> None:
    weight, scales, dense = draw(group_size, sym, act_order)
    x = torch.randn(tokens, COLUMNS, generator=torch.Generator().manual_seed(tokens))
    bias = torch.arange(ROWS, dtype=torch.float32)
    got = matmul(x, weight, scales, bias, Scratch())
    want = x.double().numpy() @ dense.T + bias.double().numpy()
    assert np.abs(got.numpy() - want).max() < 2e-6 * np.abs(want).max() + 2e-5


def test_a_weight_is_rounded_once() -> None:
    for group_size, sym, act_order in (
        (16, True, False),
        (16, False, False),
        (40, False, False),
        (16, False, True),
    ):
        weight, scales, dense = draw(group_size, sym, act_order)
        assert np.array_equal(dequantise(weight, scales).numpy(), dense.astype(np.float32))


def test_leading_shape_and_dtype_follow_x() -> None:
    weight, scales, dense = draw(32)
    x = torch.randn(2, 5, COLUMNS, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    got = matmul(x, weight, scales, torch.ones(ROWS), Scratch())
    assert got.shape == (2, 5, ROWS) and got.dtype == torch.bfloat16
    want = x.double().numpy()
    assert np.abs(got.double().numpy() - (want @ dense.T + 1)).max() < 0.02 * np.abs(want @ dense.T).max()
    assert matmul(x[:0].float(), weight, scales, None, Scratch()).shape == (0, 5, ROWS)


def test_blocks_of_rows_make_no_difference_to_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, scales, dense = draw(32)
    monkeypatch.setattr("forq.layers.kernels.reference.BLOCK_BYTES", {"cpu": 9 * 4 * COLUMNS})
    for tokens in (2, 100):
        x = torch.randn(tokens, COLUMNS, generator=torch.Generator().manual_seed(tokens))
        got = matmul(x, weight, scales, None, Scratch()).numpy()
        assert np.abs(got - x.double().numpy() @ dense.T).max() < 1e-4


def test_all_layers_share_one_buffer_and_the_answer_repeats() -> None:
    scratch = Scratch()
    small, large = draw(32, rows=16), draw(32, rows=48)
    x = torch.randn(70, COLUMNS, generator=torch.Generator().manual_seed(3))
    first = matmul(x, large[0], large[1], None, scratch)
    held = scratch.memory_bytes
    for _ in range(3):
        matmul(x, small[0], small[1], None, scratch)
        assert torch.equal(matmul(x, large[0], large[1], None, scratch), first)
    assert scratch.memory_bytes == held == 48 * COLUMNS * (4 + 1)


def test_scales_are_read_anew_at_every_call() -> None:
    weight, scales, _ = draw(32)
    layer = QuantLinear(Parts(weight, (scales,), None), (Live("x.scales", torch.float16),), Scratch())
    x = torch.randn(1, COLUMNS, generator=torch.Generator().manual_seed(4))
    here = layer(x)
    layer.scales.mul_(2)
    assert torch.equal(layer(x), 2 * here)


def test_a_weight_that_contradicts_itself_is_refused() -> None:
    codes, zeros = torch.zeros(4, 8, dtype=torch.uint8), torch.zeros(1, 4, dtype=torch.int8)
    for args in (
        (codes, zeros, 8, 16),
        (codes.int(), zeros, 4, 16),
        (codes, zeros.int(), 4, 16),
        (codes, zeros, 4, 8),
    ):
        with pytest.raises(FormatError, match="expected"):
            QuantWeight(*args)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("tokens", [1, 200])
def test_equals_float64_on_a_gpu(tokens: int) -> None:
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float16, 3e-3)):
        weight, scales, dense = draw(32)
        x = torch.randn(tokens, COLUMNS, generator=torch.Generator().manual_seed(5))
        got = matmul(x.to("cuda", dtype), weight.to(torch.device("cuda")), scales.cuda(), None, Scratch())
        want = x.double().numpy() @ dense.T
        assert np.abs(got.double().cpu().numpy() - want).max() < tolerance * np.abs(want).max()
