"""bitsandbytes: ranks and bytes, magnitudes nested and not, what a save writes, files that contradict themselves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import forq
from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.formats import get
from forq.formats.codecs.bnb_state import byte_table
from forq.layers.kernels.reference import dequantise
from forq.layers.normal_float import packed, quantise, table
from forq.models.convert.quantize import quantize
from forq.models.convert.rewrite import Piece, planned, rewrite
from forq.models.layout import layout
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.saved import write
from forq.scalars.moves import Move, Term
from forq.tasks import text
from tests import tiny_checkpoints, tiny_lm
from tests.fixtures import bnb4, bnb8
from tests.fixtures.bnb4 import nested_again
from tests.reference import bnb4 as reference
from tests.unit.formats.test_gptq import rewritten

Q = "model.layers.0.self_attn.q_proj"
IDS = torch.tensor([[1, 5, 9, 2, 40, 33]])
NESTED = {"bnb_4bit_use_double_quant": True}


def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_a_cell_up_is_the_next_level(kind: Any, tmp_path: Path) -> None:
    levels = table(kind).levels
    assert torch.equal(levels[table(kind).rank_of.int()], table(kind).filed)
    rising = levels.diff() >= 0
    assert rising.all() and (levels.diff() == 0).sum() == (kind == "fp4")  # its two zeros
    model = load(bnb4.example(tmp_path, bnb_4bit_quant_type=kind), "cpu")
    space = forq.space(model, move="codes", unit="cells")
    layer = model.get_submodule(Q)
    before, ranks = layer.dequantise(), trainable(model, "codes")[-1]
    assert ranks.name == f"{Q[:-6]}v_proj.weight"
    space.apply(Move((Term(1, 1.0, "rademacher"),)))
    after = layer.dequantise()
    high = layer._arrange(layer.scales).t().repeat_interleave(layer.group_size, 1)
    places = [(matrix / high)[..., None].sub(levels).abs().argmin(-1) for matrix in (before, after)]
    assert (places[1] - places[0]).abs().max() <= 2  # one, or two where one of them is FP4's other zero
    assert ((places[1] - places[0]).abs() >= 1).float().mean() > 0.8


def test_every_byte_comes_back() -> None:
    byte = torch.arange(256)
    for kind in ("nf4", "fp4"):
        ours, theirs = byte_table(kind, ours=True), byte_table(kind, ours=False)  # type: ignore[arg-type]
        assert torch.equal(theirs[ours.int()].int(), byte)
        # The first of two weights stands in the high bits of theirs and in the low ones of ours.
        assert ours[0x1F] & 15 == table(kind).rank_of[1] and ours[0x1F] >> 4 == table(kind).rank_of[15]  # type: ignore[arg-type]


def test_rounding_takes_the_nearest_level_of_every_block() -> None:
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(3))
    ranks, absmax = quantise(weight, "nf4", 64)
    assert absmax.tolist() == [float(block.abs().max()) for block in weight.view(-1).split(64)]
    unit = weight.view(-1) / absmax.repeat_interleave(64)[:300]
    distance = (unit[:, None] - table("nf4").levels).abs()
    chosen = distance.gather(1, ranks.long()[:, None])[:, 0]
    assert (chosen <= distance.amin(1) + 1e-6).all()
    assert packed(ranks).shape == (150, 1)
    zeros, none = quantise(torch.zeros(2, 64), "fp4", 64)
    assert not none.any() and not table("fp4").levels[zeros.int()].any()
    for bad in (torch.tensor([[float("nan")] * 64]), torch.tensor([[float("inf")] * 64])):
        with pytest.raises(ConfigError, match="finite"):
            quantise(bad, "nf4")
    with pytest.raises(ConfigError, match="even blocksize"):
        quantise(weight, "nf4", 3)


def nested(floats: Path, out: Path) -> Path:
    """A float checkpoint as NF4 with double quantization, in as many files."""
    ckpt = Checkpoint.open(quantize(floats, out.with_name("plain"), to="nf4").path)
    pieces = []
    for spec in get("bnb4").layers(ckpt).values():
        own = {name: ckpt.read(name) for name in spec.tensors if name != spec.bias}
        ends = {name.removeprefix(f"{spec.name}.weight"): tensor for name, tensor in own.items()}
        new = {f"{spec.name}.weight{end}": one for end, one in (ends | nested_again(ends, "nf4")).items()}
        pieces.append(Piece(tuple(own), planned(new), partial(dict, new)))
    out.mkdir()
    rewrite(ckpt, out, pieces, ckpt.config | {"quantization_config": ckpt.config["quantization_config"] | NESTED})
    return out


def test_nested_magnitudes_are_written_plain_everywhere_once_one_moved(tmp_path: Path) -> None:
    source = nested(tiny_checkpoints.folder(tmp_path / "float", "llama-biased", shard="120KB"), tmp_path / "nested")
    assert len(list(source.glob("*.safetensors"))) > 2
    model, old = load(source, "cpu"), Checkpoint.open(source)
    leaf = trainable(model)[3]
    plain = {one.name: one.read() for one in trainable(model)}
    leaf.write(leaf.read() * 1.25)
    report = write(old, {leaf.name: leaf.read(), f"{Q}.bias": old.read(f"{Q}.bias").float() * 2}, tmp_path / "out")
    new = Checkpoint.open(report.path)
    weights = [f"{spec.name}.weight" for spec in get("bnb4").layers(old).values()]
    assert set(old.info) - set(new.info) == {
        f"{name}.nested_{kind}" for name in weights for kind in ("absmax", "quant_map")
    }
    changed = {f"{name}.absmax" for name in weights} | {f"{name}.quant_state.bitsandbytes__nf4" for name in weights}
    assert set(report.tensors) == changed | {f"{Q}.bias"}
    for name, info in new.info.items():
        if name not in report.tensors:
            assert (info.dtype, info.shape) == (old.info[name].dtype, old.info[name].shape)
            assert torch.equal(new.read(name), old.read(name))
    for name, want in plain.items():
        assert torch.equal(new.read(name), leaf.read() if name == leaf.name else want)
    said = json.loads(new.read(f"{weights[0]}.quant_state.bitsandbytes__nf4").numpy().tobytes())
    assert sorted(said) == ["blocksize", "dtype", "quant_type", "shape"]
    assert new.config["quantization_config"]["bnb_4bit_use_double_quant"] is False
    index = json.loads((report.path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(new.info)
    assert index["metadata"]["total_size"] == sum(info.nbytes for info in new.info.values())
    model.get_parameter(f"{Q}.bias").mul_(2)
    assert torch.equal(logits(load(report.path, "cpu")), logits(model))


def test_codes_that_moved_leave_the_nesting(tmp_path: Path) -> None:
    source = bnb4.example(tmp_path / "in", **NESTED)
    space = forq.space(load(source, "cpu"), move="codes", unit="cells")
    space.apply(Move((Term(1, 1.0, "uniform_grid:1"),)))
    report = write(Checkpoint.open(source), space.exported(), tmp_path / "out")
    assert Checkpoint.open(tmp_path / "out").info == Checkpoint.open(source).info
    assert all(name.endswith("_proj.weight") for name in report.tensors)


def test_magnitudes_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source = bnb4.example(tmp_path / "in", **NESTED)
    leaf = trainable(load(source, "cpu"))[0]
    with pytest.raises(FormatError, match="the run has diverged"):
        write(Checkpoint.open(source), {leaf.name: leaf.read() / 0}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("move", ["scales", "codes", "scales,norms"])
def test_a_nested_checkpoint_is_tuned_rebuilt_and_verified(move: str, tmp_path: Path) -> None:
    tiny_lm.model("llama", vocab_size=300).save_pretrained(tmp_path / "float")
    tiny_lm.tokenizer(vocabulary=300).save_pretrained(tmp_path / "float")
    source = nested(tmp_path / "float", tmp_path / "nested")
    data, options = text.example(tmp_path), {"max_length": 16, "batch_rows": 2, "validation_rows": 2, "test_rows": 2}
    run = forq.tune(
        load(source, "cpu"),
        "text",
        data,
        recipe="zoqo-paper" if move == "codes" else "qzo-paper",
        move=move,
        steps=2,
        eval_every=2,
        out=tmp_path / "run",
        settings={"task": options},
    )
    verdict = forq.verify(run.folder, source)
    assert (verdict.rebuilt, verdict.checkpoint) == (True, True)
    forq.replay(run.folder, source, tmp_path / "end")
    saved = run.folder / "checkpoint"
    assert Checkpoint.open(tmp_path / "end").digest() == Checkpoint.open(saved).digest()
    assert any("nested" in name for name in Checkpoint.open(saved).info) == (move == "codes")
    # One byte of what is not nested any more.
    file = saved / "model.safetensors"
    info = next(one for name, one in Checkpoint.open(saved).info.items() if name.endswith("k_proj.weight.absmax"))
    raw = bytearray(file.read_bytes())
    raw[info.start] ^= 1
    file.write_bytes(raw)
    assert forq.verify(run.folder, source).checkpoint is False


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "no magnitudes": ({"absmax": None}, "expected it beside"),
    "no levels": ({"quant_map": None}, "expected it beside"),
    "other levels": ({"quant_map": torch.linspace(-1, 1, 16)}, "expected the levels of nf4"),
    "levels that are none": ({"quant_map": torch.full((16,), torch.nan)}, "expected the levels of nf4"),
    "few magnitudes": ({"absmax": torch.ones(3)}, r"shape \(16,\)"),
    "wide codes": ({"": torch.zeros(512, 1, dtype=torch.bfloat16)}, "of a storage forq does not read"),
    "no text": ({"quant_state.bitsandbytes__nf4": torch.zeros(4, dtype=torch.uint8)}, "expected JSON"),
    "a list": ({"quant_state.bitsandbytes__nf4": b"[]"}, "expected a JSON object"),
    "a long text": ({"quant_state.bitsandbytes__nf4": b" " * 5000}, "at most 4096 bytes"),
    "another kind": ({"quant_state.bitsandbytes__nf4": {"quant_type": "fp4"}}, "expected quant_type 'nf4'"),
    "odd inputs": ({"quant_state.bitsandbytes__nf4": {"shape": [32, 31]}}, "an even number of inputs"),
    "three sizes": ({"quant_state.bitsandbytes__nf4": {"shape": [2, 16, 32]}}, "the shape of a matrix"),
    "a huge shape": ({"quant_state.bitsandbytes__nf4": {"shape": [1 << 31, 1 << 31]}}, "by model.layers.0"),
    "no block": ({"quant_state.bitsandbytes__nf4": {"blocksize": 0}}, "an even blocksize"),
    "half a nesting": ({"quant_state.bitsandbytes__nf4": {"nested_blocksize": 256}}, "torch.uint8 of shape"),
    "no offset": ({"quant_state.bitsandbytes__nf4": {"nested_offset": "1"}}, "finite nested_offset"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_contradicts_itself_is_refused(what: str, tmp_path: Path) -> None:
    folder, (change, says) = bnb4.example(tmp_path), DAMAGE[what]
    ckpt, damage = Checkpoint.open(folder), {}
    for end, value in change.items():
        name = f"{Q}.weight.{end}".rstrip(".")
        if isinstance(value, dict):
            value = json.dumps(json.loads(ckpt.read(name).numpy().tobytes()) | value).encode()
        damage[name] = torch.frombuffer(bytearray(value), dtype=torch.uint8) if isinstance(value, bytes) else value
    rewritten(folder, damage)
    with pytest.raises(FormatError, match=says):
        load(folder, "cpu")


def test_int8_codes_are_signed_and_its_tilings_refused(tmp_path: Path) -> None:
    folder = bnb8.example(tmp_path)
    ckpt, layer = Checkpoint.open(folder), load(folder, "cpu").get_submodule(Q)
    want = ckpt.read(f"{Q}.weight").float() * (ckpt.read(f"{Q}.SCB") / 127)[:, None]
    assert torch.equal(dequantise(layer.weight, layer._arrange(layer.scales)), want)
    assert load(folder, "cpu", activations="int8").get_submodule(Q).kernel == "int8"
    rewritten(folder, {f"{Q}.weight_format": torch.tensor(3, dtype=torch.uint8)})
    with pytest.raises(FormatError, match="tiling of older versions"):
        load(folder, "cpu")
    for name, value in (("weight_format", torch.zeros(2, dtype=torch.uint8)), ("SCB", torch.ones(31))):
        rewritten(bnb8.example(tmp_path / name), {f"{Q}.{name}": value})
        with pytest.raises(FormatError, match=f"{name}: expected"):
            layout(Checkpoint.open(tmp_path / name))


def test_quantizing_to_levels_writes_what_is_read(tmp_path: Path) -> None:
    floats = tiny_checkpoints.folder(tmp_path / "float", "opt-350m", torch.bfloat16)
    for kind in ("nf4", "fp4"):
        made = quantize(floats, tmp_path / kind, to=kind)
        ckpt, original = Checkpoint.open(made.path), Checkpoint.open(floats)
        error = energy = 0.0
        for module in reference.modules(made.path):
            exact = original.read(f"{module}.weight").double().numpy()
            error += ((reference.dequantise(made.path, module) - exact) ** 2).sum()
            energy += (exact**2).sum()
        assert made.relative_error == pytest.approx(error / energy, rel=1e-4)
        skipped = ckpt.config["quantization_config"]["llm_int8_skip_modules"]
        assert {name.rpartition(".")[2] for name in skipped} == {"lm_head", "project_in", "project_out"}
    for settings, says in (
        ({"to": "nf5"}, "did you mean 'nf4'"),
        ({"to": "nf4", "bits": 8}, "but the group size, found bits 8, which gptq takes"),
        ({"to": "fp4", "sym": False}, "found sym False"),
        ({"to": "nf4", "group_size": -1}, "even block size"),
    ):
        with pytest.raises(ConfigError, match=says):
            quantize(floats, tmp_path / "no", **settings)
