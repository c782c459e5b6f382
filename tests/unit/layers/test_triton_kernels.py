"""The Triton kernels give the bits of their models: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forq.coordinates import arithmetic, directions
from forq.coordinates.leaf import SparseCodes
from forq.layers.codes import pack
from forq.layers.kernels import reference
from forq.layers.linear import QuantLinear
from forq.layers.normal_float import table
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight, zeros_dtype
from forq.models.load import load
from forq.models.space import space
from forq.noise.bits import Bits, leaf_id
from forq.noise.law import law
from forq.scalars.moves import Link, Move, Moved, Term
from tests.fixtures import bnb4, gptq, hqq
from tests.unit.layers.test_reference_kernel import draw

pytest.importorskip("triton")
from forq.layers.kernels import triton
from forq.noise import triton as philox

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BITS = Bits((0xFEDCBA9876543210 << 64) | 0xFEDCBA9876543211, leaf_id("a.scales"), 7, rows=(12, 31))
RANGES = [(0, 256), (0, 5000), (300, 1), (7, 9001), (255, 300), (3, 61)]


@pytest.mark.parametrize(("start", "count"), RANGES)
def test_words_are_those_of_the_cpu(start: int, count: int) -> None:
    got = philox.words(BITS, start, count, DEVICE).cpu().numpy().view(np.uint64)
    np.testing.assert_array_equal(got, BITS.words(start, count))
    halves = philox.uniform32(BITS, start, count, DEVICE).cpu().numpy().view(np.uint32)
    np.testing.assert_array_equal(halves, BITS.uniform32(start, count))


@pytest.mark.parametrize("seed", [0, 1, 16, (1 << 128) - 1, 1 << 31, 1 << 63])
def test_no_number_changes_what_is_computed(seed: int) -> None:
    bits = Bits(seed, seed & (1 << 64) - 1, 0)
    got = philox.words(bits, 0, 40, DEVICE).cpu().numpy().view(np.uint64)
    np.testing.assert_array_equal(got, bits.words(0, 40))


@pytest.mark.parametrize(("start", "count"), RANGES)
@pytest.mark.parametrize(
    "spec",
    [
        *(
            "rademacher",
            "rows:rademacher",
            "layers:rademacher",
            "layers:uniform_grid:2",
            "uniform_grid:1",
            "uniform_grid:300",
            "sign:uniform_grid:3",
        ),
        *("sparse:0.25", "sparse:0.01", "sparse:1", "cells:0.1", "cells:3", "rows:uniform_grid:2"),
    ],
)
def test_a_law_draws_the_same_numbers_on_a_gpu(spec: str, start: int, count: int) -> None:
    want = np.empty(count, np.float32)
    law(spec).draw(BITS, start, want)
    on = law(spec).on
    assert on is not None
    got = on(BITS, start, count, DEVICE)
    assert got.dtype == torch.float32 and got.device.type == DEVICE.type
    np.testing.assert_array_equal(got.cpu().numpy(), want)
    assert (law(spec).sparse is None) == (law(spec).sparse_on is None)
    if (sparse := law(spec).sparse) is not None and (sparse_on := law(spec).sparse_on) is not None:
        for got, want in zip(sparse_on(BITS, start, count, DEVICE), sparse(BITS, start, count), strict=True):
            np.testing.assert_array_equal(got.cpu().numpy(), want)


def test_a_sum_of_signs_is_rounded_term_by_term() -> None:
    rng = np.random.default_rng(0)
    terms = tuple(
        (int(seed), float(weight), n % 2 == 1) for n, (seed, weight) in enumerate(rng.uniform(0, 2**60, (9, 2)))
    )
    for start, count in RANGES:
        want = None
        for seed, weight, by_row in terms:
            drawn = np.empty(count, np.float32)
            bits = Bits(seed, BITS.leaf, BITS.stream, BITS.rows)
            law("rows:rademacher" if by_row else "rademacher").draw(bits, start, drawn)
            drawn = drawn * np.float32(weight)
            want = drawn if want is None else want + drawn
        got = philox.sum_of_signs(terms, BITS, start, count, DEVICE)
        np.testing.assert_array_equal(got.cpu().numpy(), want)


def test_what_rounds_at_random_rounds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    want = arithmetic.rounded(x.clone(), 5, 9, 3)
    monkeypatch.setattr(arithmetic, "triton_for", lambda kind: True)
    assert torch.equal(arithmetic.rounded(x.to(DEVICE), 5, 9, 3).cpu(), want)


def weight_of(bits: int, kind: str) -> tuple[QuantWeight, torch.Tensor]:
    """A random weight of 24 × 96 in groups of 16, and its scales as a transposed view."""
    g = torch.Generator().manual_seed(bits)
    codes = pack(torch.randint(0, 1 << bits, (24, 96), dtype=torch.uint8, generator=g), bits)
    zeros = torch.randint(0, 1 << bits, (6, 24), generator=g).to(zeros_dtype(bits))
    if kind == "one":
        zeros = torch.full_like(zeros, 1)
    elif kind == "float":
        zeros = zeros + torch.rand(6, 24, generator=g)
    return QuantWeight(codes, zeros, bits, 16), torch.rand(24, 6, generator=g).t()


@pytest.mark.parametrize("kind", ["each", "one", "float"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_matrix_of_codes_is_the_references_bit_for_bit(bits: int, kind: str) -> None:
    weight, scales = weight_of(bits, kind)
    want = reference.dequantise(weight, scales)
    # The interpreter cuts what it makes bfloat16 instead of rounding it.
    for dtype in (torch.float32, torch.float16, torch.bfloat16)[: 2 if DEVICE.type == "cpu" else 3]:
        out = torch.full((24, 96), torch.nan, dtype=dtype, device=DEVICE)
        triton.fill(weight.to(DEVICE), scales.to(DEVICE), out)
        assert torch.equal(out.cpu(), want.to(dtype))


@pytest.mark.parametrize("group_size", [2, 3, 16, 40, 96])
@pytest.mark.parametrize(("sym", "act_order"), [(True, False), (False, False), (True, True), (False, True)])
def test_groups_and_orders(group_size: int, sym: bool, act_order: bool) -> None:
    weight, scales, dense = draw(group_size, sym, act_order)
    out = torch.full(dense.shape, torch.nan, device=DEVICE)
    triton.fill(weight.to(DEVICE), scales.to(DEVICE), out)
    assert np.array_equal(out.cpu().numpy(), dense.astype(np.float32))


@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_levels(name: str) -> None:
    g = torch.Generator().manual_seed(1)
    codes = pack(torch.randint(0, 16, (24, 96), dtype=torch.uint8, generator=g), 4)
    weight = QuantWeight(codes, torch.zeros(6, 24, dtype=torch.int8), 4, 16, levels=table(name).levels)
    scales = torch.rand(6, 24, generator=g)
    out = torch.full((24, 96), torch.nan, device=DEVICE)
    triton.fill(weight.to(DEVICE), scales.to(DEVICE), out)
    assert torch.equal(out.cpu(), reference.dequantise(weight, scales))


def test_a_matrix_larger_than_a_program_and_ragged() -> None:
    g = torch.Generator().manual_seed(2)
    codes = torch.randint(0, 256, (7, 650), dtype=torch.uint8, generator=g)
    weight = QuantWeight(codes, torch.full((11, 7), 8, dtype=torch.int8), 4, 128)
    scales = torch.rand(11, 7, generator=g)
    out = torch.full((7, 1300), torch.nan, device=DEVICE)
    triton.fill(weight.to(DEVICE), scales.to(DEVICE), out)
    assert torch.equal(out.cpu(), reference.dequantise(weight, scales))


def test_the_product_follows_x_bias_and_moving_codes() -> None:
    weight, scales, dense = draw(32)
    here = weight.to(DEVICE)
    x = torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(3))
    bias = torch.arange(24, dtype=torch.float32)
    got = triton.matmul(x.to(DEVICE), here, scales.to(DEVICE), bias.to(DEVICE), Scratch())
    assert got.shape == (2, 5, 24)
    assert np.abs(got.cpu().double().numpy() - (x.double().numpy() @ dense.T + bias.double().numpy())).max() < 1e-4
    codes = SparseCodes(torch.tensor([0, 95, 100, 24 * 96 - 1]), torch.tensor([15, 0, 7, 3], dtype=torch.int32))
    want = reference.matmul(x, weight, scales, None, Scratch(), codes)
    moved = SparseCodes(codes.places.to(DEVICE), codes.x.to(DEVICE))
    got = triton.matmul(x.to(DEVICE), here, scales.to(DEVICE), None, Scratch(), moved).cpu()
    assert not torch.allclose(want, reference.matmul(x, weight, scales, None, Scratch()))
    assert torch.allclose(got, want, rtol=1e-5, atol=1e-5)


def test_a_gradient_is_refused() -> None:
    weight, scales, _ = draw(32)
    here, x = weight.to(DEVICE), torch.randn(3, 96, device=DEVICE)
    for x_wants, scales_want in ((True, False), (False, True)):
        scales = scales.detach().to(DEVICE).requires_grad_(scales_want)
        given = (x.detach().requires_grad_(x_wants), here, scales, None, Scratch())
        with pytest.raises(RuntimeError, match="gradient"):
            triton.matmul(*given)
        with torch.no_grad():
            triton.matmul(*given)


MOVES = [
    Move(tuple(Term(seed, 0.01 * (seed - 2), "rows:rademacher" if seed % 2 else "rademacher") for seed in range(1, 6))),
    Move((Term(1, 0.03, "rademacher"), Term(2, 0.02, "sparse:0.5"))),
    Move((Term(1, 1.0, "uniform_grid:2"),), Link("sign", 0.01)),
]
CELLS = [
    Move((Term(1, 1.0, "cells:0.1"),)),
    Move((Term(1, 2.0, "sign:uniform_grid:1"),), Link("sign", 1.0)),
    Move((Term(1, 0.3, "rademacher"), Term(2, 0.4, "rademacher"))),
]


@pytest.mark.parametrize(("kind", "moves"), [("scales", MOVES), ("codes", CELLS)])
def test_moves_that_a_gpu_draws_have_the_same_bits(
    kind: str, moves: list[Move], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = gptq.example(tmp_path / "example"), []
    for drawn_there in (False, True):
        monkeypatch.setattr(directions, "triton_for", lambda kind, there=drawn_there: there)
        monkeypatch.setattr(arithmetic, "triton_for", lambda kind, there=drawn_there: there)
        model = load(path, DEVICE, dtype=torch.float32, kernel="reference")
        here = space(model, kind)
        seen = []
        for move in moves:
            with here.displaced(move):
                seen.append(logits(model))
            seen.append(here.apply(move))
        found.append((seen, here.digest()))
    assert found[0][1] == found[1][1]
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert one == other if isinstance(one, Moved) else torch.equal(one, other)


@pytest.mark.parametrize("example", [gptq.example, bnb4.example, hqq.example])
def test_layers_that_are_fused_compute_what_the_reference_does(example: Any, tmp_path: Path) -> None:
    model = load(example(tmp_path / "example"), DEVICE, dtype=torch.float32, kernel="reference")
    want = logits(model)
    layers = [module for module in model.modules() if isinstance(module, QuantLinear)]
    for layer in layers:
        layer.unpacked = "triton"
    here = space(model, "codes")
    assert {layer.kernel for layer in layers} == {"triton"}
    assert (logits(model) - want).abs().max() < 1e-5 * want.abs().max()
    for move in CELLS:  # few codes beside the kernel, many through the reference
        with here.displaced(move):
            shown = logits(model)
            for layer in layers:
                layer.unpacked = "reference"
            assert (logits(model) - shown).abs().max() < 1e-5 * want.abs().max()
            assert not torch.allclose(shown, want)
            for layer in layers:
                layer.unpacked = "triton"


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.tensor([[1, 5, 9, 2, 40, 33]], device=model.device)).logits
    return found
