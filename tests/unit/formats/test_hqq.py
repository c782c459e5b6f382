"""HQQ: its words, its two axes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.formats.codecs.hqq_bits import PARTS, pack, unpack
from forq.layers.scratch import Scratch
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.quantized import kernels
from tests.fixtures import hqq

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hqq.example(tmp_path / "example")


def changed(folder: Path, **change: Any) -> Path:
    """The folder with tensors or values of Q replaced; None leaves one out."""
    held = torch.load(folder / "qmodel.pt", weights_only=True)
    held[Q] = {kind: value for kind, value in (held[Q] | change).items() if value is not None}
    torch.save(held, folder / "qmodel.pt")
    return folder


@given(st.sampled_from(sorted(PARTS)), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_words_come_back(bits: int, height: int, wide: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    rows = height * PARTS[bits] - (bits == 3) * (seed % 10)
    whole = torch.randint(0, 1 << bits, (rows, wide), dtype=torch.uint8, generator=draw)
    words = pack(whole, bits)
    assert len(words) == -(-rows // PARTS[bits]) and torch.equal(unpack(words, bits, rows), whole)


def test_the_first_part_lies_in_the_highest_bits() -> None:
    assert pack(torch.tensor([[1], [2]], dtype=torch.uint8), 4).tolist() == [[1 << 4 | 2]]
    column = torch.arange(10, dtype=torch.uint8)[:, None] % 8
    assert pack(column, 3).item() == int("".join(str(int(code)) for code in column), 8)


def test_scales_and_zero_points_move_both_and_the_zero_points_are_called_offsets(folder: Path) -> None:
    model = load(folder, device="cpu")
    assert {leaf.name.rpartition(".")[2] for leaf in trainable(model, "scales,offsets")} == {"scale", "zero"}
    with pytest.raises(ConfigError, match="--move offsets"):
        trainable(model, "zeros")


def test_groups_that_are_no_part_of_a_row_are_computed_by_the_reference_kernel(tmp_path: Path) -> None:
    model = load(hqq.example(tmp_path / "axis-0", axis=0), device="cpu")
    assert set(kernels(model)) == {"reference"}


@pytest.mark.parametrize("variant", ["axis-0", "across-rows"])
def test_any_rows_of_such_a_weight_are_those_of_the_whole(variant: str, tmp_path: Path) -> None:
    model = load(hqq.example(tmp_path / "x", **hqq.VARIANTS[variant]), device="cpu")
    layer = model.get_submodule("model.layers.0.mlp.gate_proj")
    whole, part = layer.dequantise(), torch.empty(5, 32)
    layer.frozen.fill(tuple(layer.live.values()), 9, 14, part, Scratch())
    assert torch.equal(part, whole[9:14])


def test_biases_are_read(folder: Path) -> None:
    changed(folder, bias=torch.zeros(32).half())
    assert Checkpoint.open(folder).info[f"{Q}.bias"].shape == (32,)
    with pytest.raises(FormatError, match="bias"):
        load(changed(folder, bias=torch.zeros(31).half()), device="cpu")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nbits": 1.58}, "nbits"),
        ({"nbits": 6}, "nbits"),
        ({"nbits": "4"}, "nbits"),
        ({"nbits": 2}, "W_q: expected"),
        ({"axis": 2}, "axis"),
        ({"axis": True}, "axis"),
        ({"axis": 0}, "expected"),
        ({"group_size": 0}, "group_size"),
        ({"group_size": 7}, "group_size"),
        ({"group_size": -16}, "group_size"),
        ({"group_size": 32}, "expected"),
        ({"shape": torch.Size((32,))}, "shape"),
        ({"shape": torch.Size((64, 16))}, "config.json"),
        ({"shape": [32, 32]}, "shape"),
        ({"shape": None}, "shape"),
        ({"quant_zero": True}, "quant_zero"),
        ({"view_as_float": True}, "view_as_float"),
        ({"packing": None}, "packing"),
        ({"zero": None}, "zero"),
        ({"zero": torch.zeros(64, 1)[:63]}, "zero: expected"),
        ({"scale": torch.zeros(64, 1).int()}, "scale: expected"),
        ({"W_q": torch.zeros(32, 16, dtype=torch.int32)}, "W_q: expected"),
    ],
)
def test_what_contradicts_itself_is_refused(folder: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        load(changed(folder, **change), device="cpu")


def test_other_files_of_torch_are_refused_as_before(folder: Path) -> None:
    (folder / "qmodel.pt").rename(folder / "model.pt")
    with pytest.raises(FormatError, match=r"a pickle\), which can run code"):
        Checkpoint.open(folder)
