"""ONNX Runtime's operator against the reference kernel, and what a model that uses it must keep."""

import copy
import subprocess
import sys

import pytest
import torch

import forq
from forq.errors import ConfigError
from forq.layers.kernels import ort, reference
from forq.layers.layer import Live, Parts
from forq.layers.linear import QuantLinear
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight
from forq.models.load import load
from forq.models.quantized import kernels

pytest.importorskip("onnxruntime")

SHAPES = [(64, 128, 32), (48, 96, 32), (8, 64, 64), (40, 2048, 128), (24, 32, 16), (16, 512, 256)]


def layer(rows, columns, size, *, sym=True, shuffled=False):
    draw = torch.Generator().manual_seed(rows + columns + size)
    groups = columns // size
    codes = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, generator=draw)
    zeros = torch.full((groups, rows), 8) if sym else torch.randint(0, 16, (groups, rows), generator=draw)
    group_of = torch.arange(columns, dtype=torch.int32) // size
    group_of = group_of[torch.randperm(columns, generator=draw)] if shuffled else None
    scales = torch.rand(groups, rows, generator=draw) * 0.1 + 0.01
    return QuantWeight(codes, zeros.to(torch.int8), 4, size, group_of), scales


def relative(found, wanted):
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("tokens", [1, 7, 150])
@pytest.mark.parametrize(("sym", "shuffled"), [(True, False), (False, False), (True, True), (False, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_reference_to_1e_5(shape, sym, shuffled, tokens):
    weight, scales = layer(*shape, sym=sym, shuffled=shuffled)
    x = torch.randn(2, tokens, shape[1])
    kernel = ort.Kernel(weight)
    wanted = reference.matmul(x, weight, scales, None, Scratch())
    assert relative(kernel.matmul(x, scales), wanted) < 1e-5
    moved = scales * 1.5
    assert relative(kernel.matmul(x, moved), reference.matmul(x, weight, moved, None, Scratch())) < 1e-5


def test_level_four_would_be_noticed():
    """The fast level is wrong with scales as an input and says nothing; the comparison above must see it."""
    weight, scales = layer(64, 128, 32)
    x = torch.randn(16, 128)
    wanted = reference.matmul(x, weight, scales, None, Scratch())
    assert relative(ort.Kernel(weight, level=4).matmul(x, scales), wanted) > 1e-3


def test_two_forwards_have_the_same_bits():
    weight, scales = layer(64, 256, 64)
    x = torch.randn(33, 256)
    kernel = ort.Kernel(weight)
    assert torch.equal(kernel.matmul(x, scales), kernel.matmul(x, scales))


@pytest.mark.parametrize("wide", [16, -1])
@pytest.mark.parametrize("everywhere", [True, False])
def test_zero_points_of_more_than_four_bits_are_left_to_the_reference(wide, everywhere):
    """Version 1 of GPTQ's format stores zero − 1, so that 16 can be; packed, it would spill over."""
    weight, _ = layer(24, 64, 32, sym=False)
    zeros = weight.zeros.clone()
    zeros[... if everywhere else (1, 5)] = wide
    with pytest.raises(ConfigError, match="zero points from 0 to 15"):
        ort.Kernel(QuantWeight(weight.codes, zeros, 4, 32))


def quant_linear(bias=None):
    weight, scales = layer(24, 64, 32, sym=False)
    one = QuantLinear(Parts(weight, (scales,), bias), (Live("layer.scales", torch.float16),), Scratch())
    one.use(ort.Kernel, lambda: weight)
    return one, lambda x: reference.matmul(x, weight, one.scales, bias, Scratch())


def test_the_bias_is_added_and_nothing_in_gives_nothing_out():
    one, truth = quant_linear(torch.randn(24))
    x = torch.randn(2, 5, 64)
    assert relative(one(x), truth(x)) < 1e-5
    assert one(torch.empty(3, 0, 64)).shape == (3, 0, 24)


def test_scales_that_want_a_gradient_are_not_ignored():
    one, _ = quant_linear()
    one.scales.requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"differentiation|forward only"):
        one(torch.randn(3, 64))


def test_what_does_not_lie_in_float32_on_the_cpu_is_never_read_at_its_address():
    one, truth = quant_linear()
    assert one(torch.empty(3, 64, device="meta")).device.type == "meta"
    x = torch.randn(3, 64)
    one.scales = one.scales.half()
    assert torch.equal(one(x), truth(x))


def test_a_copy_computes_with_scales_of_its_own():
    one, _ = quant_linear()
    x = torch.randn(3, 64)
    before, other = one(x), copy.deepcopy(one)
    other.scales.mul_(2)
    assert torch.equal(one(x), before)
    assert relative(other(x), 2 * before) < 1e-5


def test_no_import_of_ours_imports_the_runtime():
    """Replay and verify run no layer; a machine without the runtime has them."""
    words = (
        "import sys, forq, forq.runs.replay, forq.models.load; assert not {'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", words], check=True)


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (layer(16, 48, 24)[0], "groups of 16"),
        (layer(16, 64, 8)[0], "found 8"),
        (QuantWeight(torch.zeros(8, 24, dtype=torch.uint8), torch.full((2, 8), 8, dtype=torch.int8), 4, 32), "equal"),
    ],
)
def test_what_does_not_fit_is_said(weight, says):
    with pytest.raises(ConfigError, match=says):
        ort.Kernel(weight)


def test_a_model_takes_it_by_itself_and_lets_the_codes_go(base):
    model, plain = load(base, "cpu"), load(base, "cpu", kernel="reference")
    layers = [module for module in model.modules() if isinstance(module, QuantLinear)]
    assert set(kernels(model)) == {"ort"} and set(kernels(plain)) == {"reference"}
    assert all(one._weight is None for one in layers), "the codes are held twice"
    ids = torch.arange(40)[None] % 300
    with torch.no_grad():
        assert relative(model(ids).logits, plain(ids).logits) < 1e-5
    for one, other in zip(layers, (m for m in plain.modules() if isinstance(m, QuantLinear)), strict=True):
        assert torch.equal(one.weight.codes, other.weight.codes), "read again from the file"


def test_scales_are_live_and_gradients_are_not_lost_in_silence(base):
    model, plain = load(base, "cpu"), load(base, "cpu", kernel="reference")
    ids = torch.arange(40)[None] % 300
    for one in (model, plain):
        leaf = forq.space(one).leaves[3]
        leaf.write(leaf.read() * 3)
    with torch.no_grad():
        moved = model(ids).logits
        assert relative(moved, plain(ids).logits) < 1e-5
        assert not torch.equal(moved, load(base, "cpu")(ids).logits)
    layer = next(module for module in model.modules() if isinstance(module, QuantLinear))
    x = torch.randn(3, layer.in_features, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"differentiation|forward only"):
        layer(x)


def test_a_kernel_asked_for_must_fit(base, monkeypatch):
    with pytest.raises(ConfigError, match="expected one of auto"):
        load(base, "cpu", kernel="fast")
    with pytest.raises(ConfigError, match="float32 on a CPU"):
        load(base, "cpu", torch.bfloat16, kernel="ort")
    assert "ort" not in kernels(load(base, "cpu", torch.bfloat16))
    monkeypatch.setattr(ort, "missing", lambda: "onnx and onnxruntime are needed")
    assert "ort" not in kernels(load(base, "cpu")), "auto does without"
    with pytest.raises(ConfigError, match="onnxruntime are needed"):
        load(base, "cpu", kernel="ort")
