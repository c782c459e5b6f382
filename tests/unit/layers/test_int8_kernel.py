"""Activations of 8 bits against the reference kernel, and what a model and a run that use them must keep."""

import copy

import pytest
import torch

import forq
from forq.errors import ConfigError
from forq.layers.kernels import int8, reference
from forq.layers.linear import QuantLinear
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight
from forq.models.convert.quantize import quantize
from forq.models.load import load
from forq.models.quantized import kernels
from tests import tiny_checkpoints
from tests.fixtures import bnb8

pytestmark = pytest.mark.skipif(
    torch.backends.quantized.engine not in ("x86", "fbgemm"), reason="torch's engine here is neither x86 nor fbgemm"
)

IDS = tiny_checkpoints.ids(rows=2, length=24)


def layer(rows=48, columns=96, *, bits=8, groups=1, zero=128):
    draw = torch.Generator().manual_seed(rows + columns)
    codes = torch.randint(0, 256, (rows, columns * bits // 8), dtype=torch.uint8, generator=draw)
    zeros = torch.full((groups, rows), zero if bits == 8 else 8).to(torch.int16 if bits == 8 else torch.int8)
    return QuantWeight(codes, zeros, bits, columns // groups), torch.rand(groups, rows, generator=draw) * 0.01 + 0.001


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("tokens", (1, 7, 150))
@pytest.mark.parametrize("shape", ((48, 96), (8, 64), (40, 2048)))
def test_it_is_the_reference_to_three_percent(shape, tokens):
    weight, scales = layer(*shape)
    x = torch.randn(2, tokens, shape[1], generator=torch.Generator().manual_seed(0))
    kernel = int8.Kernel(weight)
    found = kernel.matmul(x, scales)
    assert found.shape == (2, tokens, shape[0])
    assert 0 < relative(found, reference.matmul(x, weight, scales, None, Scratch())) < 0.03
    # The scale is outside: a probe of the scales scales what was computed, bit for bit.
    assert torch.equal(kernel.matmul(x, scales * 2), found * 2)
    assert torch.equal(copy.deepcopy(kernel).matmul(x, scales), found)
    assert kernel.matmul(x[:, :0], scales).shape == (2, 0, shape[0])


def test_inputs_of_whole_numbers_are_computed_exactly():
    weight, scales = layer()
    x = torch.randint(-63, 64, (5, 96), generator=torch.Generator().manual_seed(0)).float()
    x[:, 0], x[:, 1] = -63, 64  # the range of seven bits, so that one level is one
    wanted = reference.matmul(x, weight, scales, None, Scratch())
    assert relative(int8.Kernel(weight).matmul(x, scales), wanted) < 1e-5


@pytest.mark.parametrize(
    ("made", "says"),
    [(layer(bits=4), "8 bits"), (layer(groups=2), "2 groups"), (layer(zero=127), "zero points of 128")],
)
def test_what_does_not_fit_is_said(made, says):
    with pytest.raises(ConfigError, match=says):
        int8.Kernel(made[0])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("int8")
    quantize(tiny_checkpoints.folder(root / "float", "llama", torch.float16), root / "rows", bits=8, group_size=-1)
    return root / "rows"


def test_a_model_takes_it_when_asked_and_its_scales_are_live(base, tmp_path):
    model, plain = load(base, "cpu", activations="int8"), load(base, "cpu")
    assert set(kernels(model)) == {"int8"} and "int8" not in kernels(plain)
    with torch.inference_mode():
        here, there = model(IDS).logits, plain(IDS).logits
        assert 0 < relative(here, there) < 0.1
        space = forq.space(model)
        with space.displaced(forq.scalars.moves.Move((forq.scalars.moves.Term(1, 0.05),))):
            assert not torch.equal(model(IDS).logits, here)
        assert torch.equal(model(IDS).logits, here)
    one = next(module for module in model.modules() if isinstance(module, QuantLinear))
    twin = next(module for module in plain.modules() if isinstance(module, QuantLinear))
    assert torch.equal(one.weight.codes, twin.weight.codes)
    with pytest.raises(ConfigError, match="group-size -1"):
        load(tiny_checkpoints.folder(tmp_path / "float", "llama"), "cpu", activations="int8")
    with pytest.raises(ConfigError, match="found 'int4'"):
        load(base, "cpu", activations="int4")


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_what_becomes_of_inputs_is_told_as_it_is(activations, tmp_path):
    model = load(bnb8.example(tmp_path), "cpu", activations=activations)
    (said,) = model.unlike
    assert ("stay in float" in said) is (activations == "float")
    assert ("--activations int8 rounds them" in said) is (activations == "int8") is ("int8" in kernels(model))
