"""Products in bfloat16: what they compute, which layers do, and what a run that asks for them keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import forq
from forq.errors import ConfigError, JournalError
from forq.layers.dense import DenseLinear
from forq.layers.kernels import bfloat16
from forq.layers.kernels.native import build, products
from forq.layers.linear import Activations, QuantLinear
from forq.layers.scratch import Scratch
from forq.models.convert.quantize import quantize
from forq.models.options import check_choices
from forq.models.quantized import activations, kernels
from forq.runs import journal
from forq.runs.open_task import open_task
from forq.runs.run import Run
from forq.scalars.moves import Move, Term
from tests import tiny_checkpoints

needs_amx = pytest.mark.skipif(not products.able(32), reason="no AMX, or no compiler for it")

IDS = tiny_checkpoints.ids(rows=2, length=24)


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.folder(tmp_path_factory.mktemp("floats"), "llama-biased")


@pytest.fixture(scope="module")
def quantized(floats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "four"
    quantize(floats, folder, bits=4, group_size=32)
    return folder


def near(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def layers(model: Any) -> dict[str, QuantLinear | DenseLinear]:
    return {name: one for name, one in model.named_modules() if isinstance(one, QuantLinear | DenseLinear)}


@pytest.fixture(params=["own", "torch"])
def multiplier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two functions that multiply, where this machine has it."""
    if request.param == "torch":
        monkeypatch.setattr(products, "able", lambda columns: False)
    elif not products.able(32):
        pytest.skip("no AMX, or no compiler for it")
    kind: str = request.param
    return kind


@needs_amx
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("outputs", "inputs", "tokens"), [(96, 64, 16), (37, 32, 48), (5, 160, 80), (200, 96, 32)])
def test_the_own_function_sums_rounded_numbers_in_float32(
    outputs: int, inputs: int, tokens: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    draw = torch.Generator().manual_seed(outputs)
    x, w = (torch.randn(n, inputs, generator=draw) for n in (tokens, outputs))
    wide = torch.full((tokens, outputs + 2), 7.0)
    products.multiply(x.bfloat16(), w, wide[:, 1:-1])
    assert near(wide[:, 1:-1], (x.bfloat16().double() @ w.bfloat16().double().t()).float()) < 1e-6
    assert wide[:, 0].unique().tolist() == wide[:, -1].unique().tolist() == [7.0]


@needs_amx
def test_the_own_function_reads_no_further_than_its_tensors() -> None:
    x, w, y = torch.zeros(16, 32, dtype=torch.bfloat16), torch.zeros(8, 32), torch.zeros(16, 8)
    products.multiply(x, w, y)
    for wrong in (
        (x.float(), w, y),
        (x[:8], w, y[:8]),
        (x, w[:, :16], y),
        (x, w.double(), y),
        (x, w, y[:, :7]),
        (x, torch.zeros(8, 64)[:, ::2], y),
        (x, w, torch.zeros(8, 16).t()),
    ):
        with pytest.raises(RuntimeError, match="native kernel"):
            products.multiply(*wrong)


def test_inputs_and_weights_are_rounded_and_the_bias_is_not(quantized: Path, multiplier: str) -> None:
    layer = forq.load(quantized, "cpu", activations="bfloat16").get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer, QuantLinear) and layer.in_bfloat16 and layer.bias is not None
    x = torch.randn(3, 5, layer.in_features, generator=torch.Generator().manual_seed(0))
    rounded = x.bfloat16().double() @ layer.dequantise().bfloat16().double().t()
    found = layer(x)
    assert found.dtype == torch.float32 and found.shape == (3, 5, layer.out_features)
    error = near(found - layer.bias, rounded.float())
    assert error < 1e-6 if multiplier == "own" else 1e-4 < error < 4e-3  # torch rounds the result as well


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 300, 1000])
def test_any_number_of_tokens_is_computed(tokens: int, quantized: Path, floats: Path, multiplier: str) -> None:
    x = torch.randn(tokens, 64, generator=torch.Generator().manual_seed(tokens))
    for source in (quantized, floats):
        rounded, plain = (
            forq.load(source, "cpu", activations=how).get_submodule("model.layers.1.self_attn.q_proj")
            for how in ("bfloat16", "float")
        )
        assert rounded(x).shape == (tokens, 64) and 0 < near(rounded(x), plain(x)) < 0.01


def test_blocks_and_head_compute_in_bfloat16_and_all_else_in_float32(
    floats: Path, quantized: Path, multiplier: str
) -> None:
    for source, kind in ((floats, DenseLinear), (quantized, QuantLinear)):
        model, plain = forq.load(source, "cpu", activations="bfloat16"), forq.load(source, "cpu")
        assert activations(model) == "bfloat16" and activations(plain) == "float"
        chosen = {name for name, layer in layers(model).items() if layer.in_bfloat16}
        blocks = {name for name in layers(model) if ".layers." in name}
        # torch would round the logits, so the head multiplies in bfloat16 by the own function alone.
        assert chosen == blocks | ({"lm_head"} if multiplier == "own" else set())
        assert "lm_head" in layers(model) and all(isinstance(layers(model)[name], kind) for name in blocks)
        assert model.dtype == torch.float32 and "ort" not in kernels(model)
        with torch.inference_mode():
            here, there = model(IDS).logits, plain(IDS).logits
        assert here.dtype == torch.float32 and 0 < near(here, there) < 0.03


@pytest.mark.parametrize("move", ["scales", "codes", "dense"])
def test_a_probe_is_seen_and_taken_back(move: str, floats: Path, quantized: Path, multiplier: str) -> None:
    model = forq.load(floats if move == "dense" else quantized, "cpu", activations="bfloat16")
    space = forq.space(model, move)
    with torch.inference_mode():
        before = model(IDS).logits
        with space.displaced(Move((Term(1, 1.0 if move == "codes" else 0.05),))):
            assert near(model(IDS).logits, before) > 0.001
        assert torch.equal(model(IDS).logits, before)


def test_what_cannot_be_is_refused(quantized: Path) -> None:
    with pytest.raises(ConfigError, match="another kernel than ort"):
        forq.load(quantized, "cpu", activations="bfloat16", kernel="ort")
    with pytest.raises(ConfigError, match="expected a CPU, found cuda"):
        check_choices("auto", "bfloat16", torch.device("cuda"))


def test_a_cpu_without_such_instructions_is_named(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for slow in (True, False):
        monkeypatch.setattr(bfloat16, "slow", lambda slow=slow: slow)
        said = [
            note for note in forq.load(quantized, "cpu", activations="bfloat16").unlike if "no instructions" in note
        ]
        assert bool(said) is slow
        assert not any("bfloat16" in note for note in forq.load(quantized, "cpu").unlike)


def test_a_run_keeps_its_products(base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tuned(how: Activations, **more: Any) -> Run:
        given = {"steps": 3, "out": tmp_path / "run", "settings": {"task": {"max_length": 16, "validation_rows": 8}}}
        return forq.tune(forq.load(base, "cpu", activations=how), "text", text, **given, **more)

    run = tuned("bfloat16")
    assert run.config.activations == "bfloat16" and journal.read(run.journal).header["activations"].startswith(
        "bfloat16 by "
    )
    whole = run.journal.read_bytes().splitlines(keepends=True)
    run.journal.write_bytes(b"".join(whole[:-1]))
    with pytest.raises(ConfigError, match="activations"):
        tuned("float", resume=True)
    model = forq.load(base, "cpu", activations="bfloat16")
    task = open_task(run.config.task, model, run.config.seed)
    other = "torch" if products.able(32) else "own"
    with monkeypatch.context() as patch:
        patch.setattr("forq.runs.header.multiplier", lambda model: other)
        with pytest.raises(JournalError, match=f"activations .*found .bfloat16 by {other}.*AMX"):
            Run.resume(tmp_path / "run", run.config, model, task)
    assert tuned("bfloat16", resume=True).journal.read_bytes().splitlines(keepends=True)[1:] == whole[1:]
    forq.replay(tmp_path / "run", base, tmp_path / "rebuilt")
    one, two, first = (
        (folder / "model.safetensors").read_bytes() for folder in (run.checkpoint, tmp_path / "rebuilt", base)
    )
    assert one == two != first


def test_settings_and_model_compute_alike(base: Path, text: Path, tmp_path: Path) -> None:
    plain = forq.load(base, "cpu")
    run = forq.tune(plain, "text", text, steps=1, out=tmp_path / "run")
    for how in ("float", "bfloat16"):
        config = run.config.model_copy(update={"activations": how})
        model = forq.load(base, "cpu", activations="float" if how == "bfloat16" else "bfloat16")
        with pytest.raises(ConfigError, match=f"expected a model loaded with {how}"):
            Run.begin(tmp_path / "other", config, model, open_task(config.task, model, 0))


def test_gradients_are_refused_and_leave_nothing_behind(floats: Path, quantized: Path, multiplier: str) -> None:
    x = torch.randn(2, 64)
    for source, kernel in ((floats, "auto"), (quantized, "reference"), (quantized, "auto")):
        layer = forq.load(source, "cpu", activations="bfloat16", kernel=kernel).get_submodule(
            "model.layers.0.self_attn.q_proj"
        )
        before = layer(x)
        with pytest.raises(RuntimeError, match="no gradient passes"):
            layer(x.clone().requires_grad_())
        assert torch.equal(layer(x), before) and not layer(x).requires_grad


@pytest.mark.parametrize("width", [48, 64])
def test_widths_that_are_no_multiple_of_32_and_no_rows_at_all(width: int, tmp_path: Path, multiplier: str) -> None:
    w = torch.randn(40, width)
    for rows in (0, 3):
        x = torch.randn(rows, 2, width)
        found = bfloat16.linear(x, w, Scratch())
        assert found.shape == (rows, 2, 40) and torch.allclose(found, x @ w.t(), atol=0.2)
    assert torch.allclose(bfloat16.linear(x, w.t().contiguous().t(), Scratch()), x @ w.t(), atol=0.2)


def test_why_torch_multiplies_is_said(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "products", lambda: "gcc is of the last century")
    monkeypatch.setattr(bfloat16, "slow", lambda: False)
    assert "last century" in " ".join(forq.load(quantized, "cpu", activations="bfloat16").unlike)


def test_a_run_in_float_says_nothing_of_it(base: Path, text: Path, tmp_path: Path) -> None:
    """So that journals of older versions still resume."""
    run = forq.tune(forq.load(base, "cpu"), "text", text, steps=1, out=tmp_path / "run")
    assert "activations" not in journal.read(run.journal).header
