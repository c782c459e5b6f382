"""torchao: the text in a header, zero points that count and those that do not, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.safetensors import read_metadata
from forq.checkpoints.write import write_file
from forq.errors import ConfigError, FormatError
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.quantized import kernels
from tests.fixtures import torchao

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return torchao.example(tmp_path / "example")


def rewritten(
    folder: Path, change: dict[str, torch.Tensor | None], said: Callable[[dict[str, Any]], Any] = lambda found: found
) -> Checkpoint:
    """The folder with tensors replaced (or left out, by None), and with what the header says of Q changed."""
    ckpt = Checkpoint.open(folder)
    tensors = {name: ckpt.read(name) for name in ckpt.info} | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
    text = read_metadata(folder / "model.safetensors")
    text[f"{Q}.weight"] = json.dumps(said(json.loads(text[f"{Q}.weight"])))
    write_file(folder / "model.safetensors", plan, kept.items(), text)
    return Checkpoint.open(folder)


def test_a_save_keeps_the_header_and_its_text(folder: Path, tmp_path: Path) -> None:
    model = load(folder, device="cpu")
    model.checkpoint.save_patched(tmp_path / "out", {leaf.name: leaf.read() * 2 for leaf in trainable(model)})
    there = tmp_path / "out" / "model.safetensors"
    assert read_metadata(there) == read_metadata(folder / "model.safetensors")
    assert json.loads(read_metadata(there)[f"{Q}.weight"])["_type"] == "IntxUnpackedToInt8Tensor"


def test_zero_points_move_where_they_count_and_nowhere_else(folder: Path, tmp_path: Path) -> None:
    assert len(trainable(load(folder, device="cpu"), "zeros")) == 7
    other = torchao.example(tmp_path / "int8", **torchao.VARIANTS["int8-rows"])
    with pytest.raises(ConfigError, match="zeros to move"):
        trainable(load(other, device="cpu"), "zeros")
    zeros = torch.ones(32, 1, dtype=torch.int8)
    with pytest.raises(FormatError, match="Int8Tensor computes without them"):
        load(rewritten(other, {f"{Q}._weight_zero_point": zeros}), device="cpu")
    without = {name: None for name in Checkpoint.open(other).info if name.endswith("zero_point")}
    assert load(rewritten(other, dict(without)), device="cpu")


def test_a_scale_for_a_whole_matrix_is_one_coordinate(tmp_path: Path) -> None:
    folder = torchao.example(tmp_path / "matrix", **torchao.VARIANTS["int8-dynamic-matrix"])
    leaves = trainable(load(folder, device="cpu"))
    assert all(leaf.shape == (1, 1) for leaf in leaves)


def test_rounding_of_inputs_is_told_and_can_be_asked_for(folder: Path, tmp_path: Path) -> None:
    assert load(folder, device="cpu").unlike == ()
    settings = dict(torchao.VARIANTS["int8-rows"]) | {"dynamic": True}
    model = load(torchao.example(tmp_path / "dynamic", **settings), device="cpu")
    assert len(model.unlike) == 1 and "round their inputs to 8 bits" in model.unlike[0]
    rounded = load(tmp_path / "dynamic", device="cpu", activations="int8")
    assert len(kernels(rounded)["int8"]) == 7


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (lambda found: None, "a description"),
        (lambda found: [1], "a description"),
        (lambda found: found | {"_type": "Int4TilePackedTo4dTensor"}, "IntxWeightOnlyConfig"),
        (lambda found: found | {"_type": ["Int8Tensor"]}, "expected a weight among"),
        (lambda found: found | {"_data": 3}, "a description"),
        (lambda found: found | {"_data": found["_data"] | {"block_size": [1, 7]}}, "block_size"),
        (lambda found: found | {"_data": found["_data"] | {"block_size": [2, 16]}}, "block_size"),
        (lambda found: found | {"_data": found["_data"] | {"block_size": [1, 8]}}, "_weight_scale: expected"),
        (lambda found: found | {"_data": found["_data"] | {"block_size": [1, -16]}}, "block_size"),
        (lambda found: found | {"_data": found["_data"] | {"target_dtype": {"_data": "int5"}}}, "target_dtype"),
        (lambda found: found | {"_data": found["_data"] | {"target_dtype": "int4"}}, "target_dtype"),
        (lambda found: found | {"_data": found["_data"] | {"target_dtype": {"_data": "int2"}}}, "numbers -2 … 1"),
    ],
)
def test_a_header_that_says_what_cannot_be_read_is_refused(folder: Path, said: Any, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        load(rewritten(folder, {}, said), device="cpu")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("_weight_zero_point", None),
        ("_weight_zero_point", torch.zeros(32, 2).half()),
        ("_weight_zero_point", torch.full((32, 2), 8, dtype=torch.int8)),
        ("_weight_scale", torch.zeros(32, 4).half()),
        ("_weight_qdata", torch.full((32, 32), -9, dtype=torch.int8)),
        ("_weight_qdata", torch.zeros(32, 0, dtype=torch.int8)),
        ("_weight_act_pre_scale", torch.ones(32)),
    ],
)
def test_tensors_that_contradict_the_header_are_refused(folder: Path, kind: str, change: Any) -> None:
    with pytest.raises(FormatError, match=kind):
        load(rewritten(folder, {f"{Q}.{kind}": change}), device="cpu")


def test_metadata_that_is_no_text_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = {"tensor_names": ["a"]}
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + length :])
    with pytest.raises(FormatError, match="map names to texts"):
        load(folder, device="cpu")
