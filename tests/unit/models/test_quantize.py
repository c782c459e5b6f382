"""Quantizing: codes nearest in the scales the file holds, everything else as it was, in all formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.inspection.memory import summary
from forq.layers.codes import unpack
from forq.layers.kernels.reference import dequantise
from forq.layers.round_to_nearest import round_to_nearest
from forq.models.convert.onload import quantized
from forq.models.convert.quantize import quantize
from forq.models.leaves import trainable
from forq.models.load import load
from tests import tiny_checkpoints, tiny_lm
from tests.reference import gptq as reference


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.folder(tmp_path_factory.mktemp("float") / "x", "opt", torch.bfloat16, "60KB")


@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("group_size", [-1, 32])
def test_what_is_written_is_near_what_was_read(
    floats: Path, tmp_path: Path, form: str, sym: bool, group_size: int
) -> None:
    report = quantize(floats, tmp_path / "q", 4, group_size, sym, form)
    source = reference.tensors(floats)
    modules = reference.modules(tmp_path / "q")
    assert report.layers == len(modules) == 12
    wrong = right = 0.0
    for module in modules:
        dense, exact = reference.dequantise(tmp_path / "q", module), source[f"{module}.weight"]
        wrong += float(((dense - exact) ** 2).sum())
        right += float((exact.astype(np.float64) ** 2).sum())
    assert report.relative_error == pytest.approx(wrong / right, rel=1e-4)
    assert wrong / right < 0.014


def test_float_tensors_and_files_are_as_they_were(floats: Path, tmp_path: Path) -> None:
    (floats / "pytorch_model.bin").write_bytes(b"stale")
    quantize(floats, tmp_path / "q", group_size=32)
    old, new = Checkpoint.open(floats), Checkpoint.open(tmp_path / "q")
    assert len({info.file for info in new.info.values()}) > 1
    for name in old.info:
        if ".layers." in name and name.endswith(("proj.weight", "fc1.weight", "fc2.weight")):
            assert name not in new.info and name.replace(".weight", ".qweight") in new.info
        else:
            assert new.info[name].dtype == old.info[name].dtype and torch.equal(new.read(name), old.read(name))
    assert (tmp_path / "q" / "tokenizer.json").read_bytes() == (floats / "tokenizer.json").read_bytes()
    assert not (tmp_path / "q" / "pytorch_model.bin").exists()
    (floats / "pytorch_model.bin").unlink()
    written = json.loads((tmp_path / "q" / "config.json").read_text())
    how = written.pop("quantization_config")
    assert written == json.loads((floats / "config.json").read_text())
    assert how == {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "desc_act": False,
        "checkpoint_format": "gptq",
    }


def test_every_tensor_is_aligned_for_readers_that_view_bytes(floats: Path, tmp_path: Path) -> None:
    quantize(floats, tmp_path / "q", group_size=32)
    for info in Checkpoint.open(tmp_path / "q").info.values():
        assert info.start % info.dtype.itemsize == 0


@pytest.mark.parametrize("sym", [True, False])
def test_no_other_code_is_nearer(sym: bool) -> None:
    exact = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    weight, scales = round_to_nearest(exact, 16, sym=sym)
    dense = dequantise(weight, scales.float())
    column_scales = scales.float().t().repeat_interleave(16, 1)
    codes = torch.stack((weight.codes & 15, weight.codes >> 4), -1).view(8, 64).int()
    for step in (-1, 1):
        other = dense + step * column_scales
        inside = (codes + step >= 0) & (codes + step <= 15)
        assert ((other - exact).abs() >= (dense - exact).abs() - 1e-6)[inside].all()


@pytest.mark.parametrize("sym", [True, False])
def test_the_search_beats_the_full_range(sym: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))

    def error() -> float:
        weight, scales = round_to_nearest(exact, 64, sym=sym)
        return float((dequantise(weight, scales.float()) - exact).square().mean())

    searched = error()
    monkeypatch.setattr("forq.layers.round_to_nearest._SHRINK", (1.0,))
    assert searched < 0.95 * error()


def test_a_group_of_zeros_stays_zero_and_can_still_be_moved() -> None:
    exact = torch.zeros(8, 32)
    exact[:, 16:] = 1.0
    for sym in (True, False):
        weight, scales = round_to_nearest(exact, 16, sym=sym)
        assert (scales > 0).all() and (dequantise(weight, scales.float())[:, :16] == 0).all()


def test_impossible_settings_are_refused_with_the_layer_named(floats: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fc2\.weight: expected a group_size that divides its 96 inputs, found 64"):
        quantize(floats, tmp_path / "q", group_size=64)
    with pytest.raises(ConfigError, match="expected 2, 3, 4, 8, found 6"):
        quantize(floats, tmp_path / "q", bits=6)
    with pytest.raises(ConfigError, match="positive group_size"):
        quantize(floats, tmp_path / "q", group_size=0)
    with pytest.raises(FormatError, match="checkpoint_format"):
        quantize(floats, tmp_path / "q", group_size=32, checkpoint_format="marlin")
    assert not list(tmp_path.iterdir())
    quantize(floats, tmp_path / "q", group_size=32)
    with pytest.raises(FormatError, match="quantized already"):
        quantize(tmp_path / "q", tmp_path / "qq", group_size=32)
    with pytest.raises(ConfigError, match="overwrite=True"):
        quantize(floats, tmp_path / "q", group_size=32)


def test_a_quantization_config_of_null_is_none(floats: Path, tmp_path: Path) -> None:
    shutil.copytree(floats, tmp_path / "float")
    config = json.loads((floats / "config.json").read_text()) | {"quantization_config": None}
    (tmp_path / "float" / "config.json").write_text(json.dumps(config))
    assert quantize(tmp_path / "float", tmp_path / "q", group_size=32).layers == 12
    assert Checkpoint.open(quantized(tmp_path / "float", "nf4", tmp_path / "base")).config["quantization_config"]


def test_weights_that_are_not_finite_are_refused(floats: Path, tmp_path: Path) -> None:
    ckpt = Checkpoint.open(floats)
    name = "model.decoder.layers.0.fc1.weight"
    broken = ckpt.read(name)
    broken[0, 0] = float("inf")
    # Past save_patched, which refuses to write such a value.
    shutil.copytree(floats, tmp_path / "broken")
    info = ckpt.info[name]
    with (tmp_path / "broken" / info.file).open("r+b") as stream:
        stream.seek(info.start)
        stream.write(broken.view(torch.int16).numpy().tobytes())
    with pytest.raises(FormatError, match=f"{name}: expected finite numbers, found 0 NaN and 1 infinite"):
        quantize(tmp_path / "broken", tmp_path / "q", group_size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_the_result_loads(floats: Path, tmp_path: Path) -> None:
    quantize(floats, tmp_path / "q", group_size=32)
    assert torch.isfinite(load(tmp_path / "q", device="cpu")(tiny_checkpoints.ids()).logits).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("sym", [True, False])
def test_every_width_rounds_within_half_a_step(bits: int, sym: bool) -> None:
    exact = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    weight, scales = round_to_nearest(exact, 32, bits=bits, sym=sym)
    assert (weight.bits, weight.in_features, weight.codes.nbytes) == (bits, 64, 16 * 64 * bits // 8)
    off = (dequantise(weight, scales.float()) - exact).abs()
    step = scales.float().t().repeat_interleave(32, 1)
    codes = unpack(weight.codes, bits)
    inside = (codes > 0) & (codes < (1 << bits) - 1)
    assert (off <= 0.5 * step * (1 + 1e-3))[inside].all()
    error = float(off.square().mean() / exact.square().mean())
    assert error < {2: 0.2, 3: 0.05, 4: 0.02, 8: 1e-4}[bits]


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_a_model_of_every_width_is_moved_and_saved(tmp_path: Path, bits: int) -> None:
    source = tiny_checkpoints.folder(tmp_path / "float", "llama")
    made = quantize(source, tmp_path / "q", bits, 32, False)
    model = load(made.path, device="cpu")
    leaves = trainable(model)
    moved = {leaf.name: leaf.read() * 1.1 for leaf in leaves}
    for leaf in leaves:
        leaf.write(moved[leaf.name].half().float())
    model.checkpoint.save_patched(tmp_path / "out", moved)
    ids = tiny_checkpoints.ids()
    assert torch.equal(load(tmp_path / "out", device="cpu")(ids).logits, model(ids).logits)
    assert summary(Checkpoint.open(made.path)).bits == bits


def test_impossible_bits_are_refused(tmp_path: Path) -> None:
    source = tiny_checkpoints.folder(tmp_path / "float", "llama")
    with pytest.raises(ConfigError, match=r"^bits: expected 2, 3, 4, 8, found 5"):
        quantize(source, tmp_path / "q", 5)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose inner width, 172, fills no words of eight codes: down_proj is (64, 172)."""
    model = tiny_lm.model(hidden_size=64, intermediate_size=172)
    folder = tmp_path_factory.mktemp("uneven") / "float"
    model.half().save_pretrained(folder)
    return folder


IDS = torch.randint(2, 400, (2, 12), generator=torch.Generator().manual_seed(5))
UNEVEN = ("gate_proj", "up_proj", "down_proj")


def test_nf4_takes_what_gptq_does_not(uneven: Path, tmp_path: Path) -> None:
    made = quantize(uneven, tmp_path / "q", to="nf4")
    assert made.layers == 14 and made.kept == ()
    exact, near = (load(folder, device="cpu")(IDS).logits for folder in (uneven, tmp_path / "q"))
    assert 0 < float((near - exact).abs().mean()) < 0.5 * float(exact.abs().mean())


def test_what_does_not_fit_is_said_with_the_way_to_keep_it(uneven: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        quantize(uneven, tmp_path / "q")
    message = str(refused.value)
    assert (
        "mlp.down_proj.weight: expected inputs and outputs in multiples of 8" in message and "5 more layers" in message
    )
    assert message.endswith("--keep down_proj --keep gate_proj --keep up_proj")
    keep = message.rpartition(": --keep ")[2].split(" --keep ")
    made = quantize(uneven, tmp_path / "q", keep=keep)
    assert made.layers == 8 and len(made.kept) == 6
    with pytest.raises(ConfigError, match=r"expected a group_size that divides its 64 inputs, found 48.*--keep"):
        quantize(uneven, tmp_path / "qq", group_size=48, keep=UNEVEN)


def test_kept_layers_stay_as_they_are_and_the_owners_loaders_are_told(uneven: Path, tmp_path: Path) -> None:
    first = "model.layers.0.self_attn.q_proj"
    made = quantize(uneven, tmp_path / "q", keep=["mlp.*", first])
    assert made.layers == 7 and set(made.kept) >= {first, "model.layers.1.mlp.up_proj"}
    old, new = Checkpoint.open(uneven), Checkpoint.open(made.path)
    for name in made.kept:
        assert torch.equal(new.read(f"{name}.weight"), old.read(f"{name}.weight"))
    how = new.config["quantization_config"]
    assert len(how["dynamic"]) == 7 and f"-:^{first.replace('.', chr(92) + '.')}$" in how["dynamic"]
    assert len(how["modules_in_block_to_quantize"][0]) == 7
    assert summary(new).layers == 7 and len(trainable(load(made.path, device="cpu"))) == 7
    made = quantize(uneven, tmp_path / "nf4", to="nf4", keep=["down_proj"])
    skipped = Checkpoint.open(made.path).config["quantization_config"]["llm_int8_skip_modules"]
    assert {"lm_head", *made.kept} == set(skipped)


def test_a_layer_to_keep_must_be_there_and_one_must_be_left(uneven: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^keep: expected the name of a layer, or its end \(.*q_proj.*found 'q'"):
        quantize(uneven, tmp_path / "q", keep=["q"])
    with pytest.raises(ConfigError, match="found all of them kept"):
        quantize(uneven, tmp_path / "q", keep=["*"])
