"""compressed-tensors: its words, what its configuration can say, and every way a file can contradict it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.errors import FormatError
from forq.formats import recognised
from forq.formats.codecs import compressed_write
from forq.formats.codecs.compressed_words import pack_codes, pack_zeros, signed_zeros, unpack_codes, unpack_zeros
from forq.formats.compressed_tensors import format as ct
from forq.layers.codes import pack, unpack
from forq.layers.weight import QuantWeight, zeros_dtype
from forq.models.leaves import trainable
from forq.models.load import load
from tests import tiny_checkpoints
from tests.fixtures.compressed_tensors import example
from tests.reference.compressed_tensors import cut
from tests.repacked import repacked

Q = "model.layers.0.self_attn.q_proj"
IDS = torch.tensor([[1, 5, 9, 2]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return example(tmp_path / "example", symmetric=False)


def rewritten(folder: Path, change: dict[str, torch.Tensor | None]) -> Checkpoint:
    """The folder's tensors with some replaced (or left out, by None)."""
    ckpt = Checkpoint.open(folder)
    tensors = {name: ckpt.read(name) for name in ckpt.info} | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
    write_file(folder / "model.safetensors", plan, kept.items())
    return Checkpoint.open(folder)


def configured(folder: Path, settings: dict[str, Any], group: dict[str, Any], weights: dict[str, Any]) -> Checkpoint:
    """The folder with changes of its configuration, of its one config group, and of that one's weights."""
    config = json.loads((folder / "config.json").read_text())
    how = config["quantization_config"]
    how["config_groups"]["group_0"]["weights"] |= weights
    how["config_groups"]["group_0"] |= group
    how |= settings
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint.open(folder)


def test_a_code_is_where_the_format_puts_it() -> None:
    word = sum(value << 4 * place for place, value in enumerate(range(8)))
    words = torch.tensor([[word, 0]], dtype=torch.int32)
    assert unpack(unpack_codes(words, 10, 4), 4).tolist() == [[*range(8), 0, 0]]
    assert unpack_zeros(words.t(), 10, 4).tolist() == [[*range(8), 0, 0]]
    assert signed_zeros(torch.tensor([[0, 8, 15]], dtype=torch.int8), 4).tolist() == [[-8], [0], [7]]


@given(st.sampled_from((2, 4, 8)), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_words_come_back(bits: int, rows: int, fours: int, seed: int) -> None:
    draw, middle, columns = torch.Generator().manual_seed(seed), 1 << bits - 1, 4 * fours
    whole = torch.randint(0, 1 << bits, (rows, columns), dtype=torch.uint8, generator=draw)
    stored = pack_codes(pack(whole, bits))
    assert stored.shape == (rows, -(-columns * bits // 32))
    assert [[code + middle for code in cut(row, bits)[:columns]] for row in stored.numpy()] == whole.tolist()
    assert torch.equal(unpack_codes(stored, columns, bits), pack(whole, bits))
    zeros = whole.to(zeros_dtype(bits))
    packed = pack_zeros(zeros, bits)
    assert packed.shape == (-(-columns * bits // 32), rows)
    assert torch.equal(packed.t(), stored) and torch.equal(unpack_zeros(packed, columns, bits), zeros)
    read = packed.reshape(-1).clone().view(packed.shape)  # as from a file: a single word has the strides of a row
    assert torch.equal(unpack_zeros(read, columns, bits), zeros)


def test_zero_points_in_bytes_are_read_and_move(folder: Path) -> None:
    """As older writers left them beside packed codes: a signed byte each."""
    ckpt, before = Checkpoint.open(folder), load(folder, device="cpu")(IDS).logits
    change = {}
    for module, spec in ct.layers(ckpt).items():
        change[f"{module}.weight_zero_point"] = signed_zeros(ct.read(ckpt, spec).weight.zeros, 4)
    rewritten(folder, change)
    model = load(folder, device="cpu")
    assert torch.equal(model(IDS).logits, before)
    for leaf in trainable(model, "zeros"):
        assert leaf.dtype == torch.int8 and torch.equal(leaf.packed(leaf.read()), change[leaf.name])


def test_a_zero_point_out_of_range_is_refused(folder: Path) -> None:
    ckpt = rewritten(folder, {f"{Q}.weight_zero_point": torch.full((32, 2), 8, dtype=torch.int8)})
    with pytest.raises(FormatError, match=r"expected -8 … 7, found 8 … 8"):
        ct.read(ckpt, ct.layers(ckpt)[Q])


def test_layers_of_several_groups_and_both_layouts_stand_side_by_side(tmp_path: Path) -> None:
    whole = example(tmp_path / "whole", num_bits=8, group_size=-1, layout="int-quantized")
    words = example(tmp_path / "words", group_size=8)
    model, other = Checkpoint.open(words), Checkpoint.open(whole)
    taken = ct.layers(other)[Q].tensors
    change: dict[str, torch.Tensor | None] = dict.fromkeys(ct.layers(model)[Q].tensors)
    config = json.loads((words / "config.json").read_text())
    groups = config["quantization_config"]["config_groups"]
    (groups["group_1"],) = other.config["quantization_config"]["config_groups"].values()
    config["quantization_config"]["format"] = "mixed-precision"
    (words / "config.json").write_text(json.dumps(config))
    rewritten(words, change | {name: other.read(name) for name in taken})
    found = {name: (spec.bits, spec.group_size) for name, spec in ct.layers(Checkpoint.open(words)).items()}
    assert found.pop(Q) == (8, 32) and set(found.values()) == {(4, 8)}
    mixed, its = load(words, device="cpu"), load(whole, device="cpu")
    assert torch.equal(mixed.get_submodule(Q).dequantise(), its.get_submodule(Q).dequantise())


def test_act_order_is_read_where_every_group_is_full(tmp_path: Path) -> None:
    folder = example(tmp_path / "x", actorder="group")
    ckpt = Checkpoint.open(folder)
    assert ct.read(ckpt, ct.layers(ckpt)[Q]).weight.group_of is not None
    ckpt = rewritten(folder, {f"{Q}.weight_g_idx": torch.full((32,), -1, dtype=torch.int32)})
    assert ct.read(ckpt, ct.layers(ckpt)[Q]).weight.group_of is None
    ckpt = rewritten(folder, {f"{Q}.weight_g_idx": torch.zeros(32, dtype=torch.int32)})
    with pytest.raises(FormatError, match="16 inputs in every group from 0 to 1"):
        ct.read(ckpt, ct.layers(ckpt)[Q])


@pytest.mark.parametrize("kind", ["llama-tied", "llama-biased", "opt", "opt-350m"])
def test_models_with_ties_biases_and_shards_load(kind: str, tmp_path: Path) -> None:
    floating = tiny_checkpoints.folder(tmp_path / "float", kind)
    how: dict[str, Any] = {"group_size": 8, "shards": 3, "left": ("v_proj", "lm_head")}
    quantized = repacked(floating, tmp_path / "quantized", ct, **how)
    model, exact = load(quantized, device="cpu"), load(floating, device="cpu")
    ids = tiny_checkpoints.ids()
    off = (model(ids).logits - exact(ids).logits).norm() / exact(ids).logits.norm()
    assert 0 < off < 0.25  # what 4 bits cost a random model


def test_inputs_the_owner_rounds_are_told_of(folder: Path) -> None:
    assert load(folder, device="cpu").unlike == ()
    rounded = {"num_bits": 8, "type": "int", "strategy": "token", "symmetric": True, "dynamic": True}
    configured(folder, {}, {"input_activations": rounded}, {})
    (said,) = load(folder, device="cpu").unlike
    assert "8 bits (int), for every token" in said
    configured(folder, {}, {"input_activations": rounded | {"dynamic": False}}, {})
    rewritten(folder, {f"{Q}.input_scale": torch.ones(1)})
    (said,) = load(folder, device="cpu").unlike
    assert "by scales of the file" in said


def test_inputs_of_modules_whose_weights_stay_in_float_are_told_of_too(folder: Path) -> None:
    """compressed-tensors rounds queries, keys and values of attention so."""
    groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]
    rounded = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}
    attention = {"targets": ["LlamaAttention"], "weights": None, "input_activations": rounded}
    configured(folder, {"config_groups": groups | {"group_1": attention}}, {}, {})
    (said,) = load(folder, device="cpu").unlike
    assert "rounds the inputs of LlamaAttention to 8 bits (float), for every token" in said
    outputs = {"targets": ["re:.*k_proj"], "weights": None, "output_activations": rounded}
    ckpt = configured(folder, {"config_groups": groups | {"group_1": outputs}}, {}, {})
    with pytest.raises(FormatError, match="group_1: expected no output_activations"):
        ct.layers(ckpt)


@pytest.mark.parametrize(
    ("settings", "group", "weights", "says"),
    [
        ({"config_groups": {}}, {}, {}, "expected config_groups"),
        ({"config_groups": {"W4A16": ["Linear"]}}, {}, {}, "write a preset out"),
        ({"config_groups": {"group_0": {"targets": ["Linear"], "weights": None}}}, {}, {}, "one config group .none."),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, {}, {}, "sparse weights are not read"),
        ({"transform_config": {"config_groups": {"R1": {}}}}, {}, {}, "expected no transform_config"),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, {}, {}, "expected no kv_cache_scheme"),
        ({}, {"format": "float-quantized"}, {"type": "float", "num_bits": 8}, r"'float-quantized': floats of 8 bits"),
        ({}, {"format": "nvfp4-pack-quantized"}, {"type": "float"}, "NVFP4"),
        ({}, {"format": "mxfp4-pack-quantized"}, {"type": "float"}, "MXFP4"),
        ({}, {"format": "marlin-24"}, {}, "repacked for one kernel"),
        ({}, {"format": "dense"}, {}, "not compressed yet"),
        ({"format": None}, {"format": None}, {}, "found None"),
        ({}, {"format": "mixed-precision"}, {}, "found 'mixed-precision'"),
        ({}, {}, {"type": "float"}, "expected weights of type 'int', found 'float' of 4 bits"),
        ({}, {}, {"num_bits": 3}, "expected 2 or 4 or 8 bits for pack-quantized, found 3"),
        ({}, {"format": "int-quantized"}, {}, "expected 8 bits for int-quantized, found 4"),
        ({}, {}, {"num_bits": "4"}, "found '4'"),
        ({}, {}, {"dynamic": True}, "expected static weights"),
        ({}, {}, {"symmetric": "yes"}, "expected static weights"),
        ({}, {"output_activations": {"num_bits": 8}}, {}, "expected no output_activations"),
        ({}, {}, {"group_size": 0}, "expected a positive group_size"),
        ({}, {}, {"group_size": 1.5}, "expected a positive group_size"),
        ({}, {}, {"strategy": "block"}, "found 'block'"),
        ({}, {}, {"strategy": "group", "group_size": -1}, "with its group_size"),
        ({}, {"weights": 4}, {}, "expected settings of weights"),
        # Settings that are sound, of other tensors.
        ({}, {}, {"symmetric": True}, None),
        ({}, {}, {"num_bits": 8}, "fit one config group"),
        ({}, {}, {"group_size": 8}, "fit one config group"),
        ({}, {}, {"strategy": "channel", "group_size": None}, "fit one config group"),
        ({}, {}, {"strategy": None, "group_size": None}, "one scale, asymmetric"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    folder: Path, settings: dict[str, Any], group: dict[str, Any], weights: dict[str, Any], says: str | None
) -> None:
    ckpt = configured(folder, settings, group, weights)
    assert recognised(ckpt) is ct
    if says is None:  # zero points that are there are read, whatever the settings expect
        assert ct.layers(ckpt)
        return
    with pytest.raises(FormatError, match=says):
        ct.layers(ckpt)


@pytest.mark.parametrize(
    ("kind", "tensor", "says"),
    [
        ("weight_scale", None, "fit one config group"),
        ("weight_zero_point", None, "fit one config group"),
        ("weight_shape", None, "expected torch.int64 or torch.int32 of shape"),
        ("weight_shape", torch.tensor([32, 0]), "found 32 and 0"),
        ("weight_shape", torch.tensor([31, 32]), "found 31 and 32"),
        ("weight_shape", torch.tensor([32, 1 << 40]), "found 32 and"),
        ("weight_shape", torch.tensor([32, 1 << 20]), "fit one config group"),
        ("weight_shape", torch.tensor([32.0, 32.0]), "found torch.float32"),
        ("weight_scale", torch.zeros(32, 3, dtype=torch.float16), "fit one config group"),
        ("weight_scale", torch.zeros(32, 2, dtype=torch.int32), "fit one config group"),
        ("weight_zero_point", torch.zeros(5, 2, dtype=torch.int32), "fit one config group"),
        ("weight_packed", torch.zeros(32, 5, dtype=torch.int32), "fit one config group"),
        ("weight_packed", torch.zeros(32, 4, dtype=torch.uint8), "it is of another format"),
        ("weight_packed", torch.zeros(0, 4, dtype=torch.int32), "expected a matrix"),
        ("weight_g_idx", torch.zeros(31, dtype=torch.int32), "fit one config group"),
        ("bias", torch.zeros(31), "of shape .32,."),
    ],
)
def test_tensors_that_cannot_be_are_refused(folder: Path, kind: str, tensor: torch.Tensor | None, says: str) -> None:
    ckpt = rewritten(folder, {f"{Q}.{kind}": tensor})
    with pytest.raises(FormatError, match=says):
        ct.layers(ckpt)


def weight(bits: int = 4, **changes: Any) -> QuantWeight:
    how = {"group_size": 16, "zeros": torch.full((2, 8), 1 << bits - 1, dtype=zeros_dtype(bits))} | changes
    return QuantWeight(torch.zeros(8, 32 * bits // 8, dtype=torch.uint8), bits=bits, **how)


def test_zero_points_are_left_out_where_all_are_the_middle() -> None:
    assert set(compressed_write.pack(weight())) == {"weight_packed", "weight_shape"}
    assert set(compressed_write.pack(weight(), sym=False)) == {"weight_packed", "weight_shape", "weight_zero_point"}
    other = weight(zeros=torch.full((2, 8), 7, dtype=torch.int8))
    assert set(compressed_write.pack(other)) == {"weight_packed", "weight_shape", "weight_zero_point"}
    assert set(compressed_write.pack(weight(8), layout="int-quantized")) == {"weight"}


@pytest.mark.parametrize(
    ("made", "how", "says"),
    [
        (weight(3), {}, "found 3 bits"),
        (weight(4), {"layout": "int-quantized"}, "8 for int-quantized"),
        (weight(group_of=torch.tensor([0, 1] * 16, dtype=torch.int32)), {}, "found act-order"),
        (weight(zeros=torch.full((2, 8), 16, dtype=torch.int8)), {}, "found 16 to 16"),
        (weight(zeros=torch.full((2, 8), 7, dtype=torch.int8)), {"sym": True}, "zero points of 8"),
        (weight(zeros=torch.full((2, 8), 7.5)), {}, "whole zero points"),
    ],
)
def test_what_the_format_cannot_say_is_not_packed(made: QuantWeight, how: dict[str, Any], says: str) -> None:
    with pytest.raises(FormatError, match=says):
        compressed_write.pack(made, **how)
