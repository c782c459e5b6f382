"""AQLM: what moves and what cannot, the shapes of the published kinds, and ways a file can contradict itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from forq.core import ConfigError, FormatError, Move, Term, direction_seed
from forq.formats import aqlm
from forq.formats.checkpoint import Checkpoint
from forq.formats.checkpoint.write import write_file
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.space import space
from forq.quant.scratch import Scratch
from tests.reference import aqlm as reference

Q = "model.layers.0.self_attn.q_proj"
IDS = torch.tensor([[1, 5, 9, 2]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return aqlm.example(tmp_path / "example")


def rewritten(folder: Path, change: dict[str, torch.Tensor | None]) -> Checkpoint:
    ckpt = Checkpoint.open(folder)
    tensors = {name: ckpt.read(name) for name in ckpt.info} | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
    write_file(folder / "model.safetensors", plan, kept.items())
    return Checkpoint.open(folder)


def configured(folder: Path, **settings: Any) -> Checkpoint:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= settings
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint.open(folder)


def test_1x16_reads_indices_that_are_stored_as_negative_numbers(tmp_path: Path) -> None:
    folder = aqlm.example(tmp_path / "1x16", num_codebooks=1, nbits_per_codebook=16)
    ckpt = Checkpoint.open(folder)
    assert int(ckpt.read(f"{Q}.codes").min()) < -30_000
    layer = load(folder, device="cpu").get_submodule(Q)
    want = torch.from_numpy(reference.dequantise(folder, Q))
    assert (layer.dequantise() - want).abs().max() < 1e-6 * want.abs().max()
    assert layer.bits == 2 and layer.group_size == 32


def test_blocks_of_rows_may_begin_and_end_inside_of_an_output_group(tmp_path: Path) -> None:
    folder = aqlm.example(tmp_path / "tall", **aqlm.VARIANTS["out-2-bfloat16"])
    layer = load(folder, device="cpu").get_submodule(Q)
    whole, part = layer.dequantise(), torch.empty(4, 32)
    layer.still.fill(tuple(layer.live.values()), 3, 7, part, Scratch())
    assert torch.equal(part, whole[3:7])


def test_codes_do_not_move_and_it_says_why(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no order to step in: --move codebooks"):
        trainable(load(folder, device="cpu"), "codes")


def test_a_codebook_has_no_output_axis_so_that_rows_are_single_coordinates(folder: Path) -> None:
    moving = space(load(folder, device="cpu"), "codebooks")
    leaf = moving.leaves[0]
    here = leaf.read()
    with moving.displaced(Move((Term(direction_seed(0, 0), 0.1, "rows:rademacher"),))):
        shared = leaf.read() - here
    with moving.displaced(Move((Term(direction_seed(0, 0), 0.1, "rademacher"),))):
        plain = leaf.read() - here
    assert torch.equal(shared, plain) and shared.unique().numel() > 2


def test_scales_and_codebooks_move_apart(folder: Path) -> None:
    model = load(folder, device="cpu")
    both = space(model, "scales,codebooks")
    assert both.groups == ("codebooks", "scales")
    before = {leaf.name: leaf.read() for leaf in both.leaves}
    both.apply(Move((Term(direction_seed(0, 0), 0.1, group="codebooks"),)))
    moved = {leaf.name for leaf in both.leaves if not torch.equal(leaf.read(), before[leaf.name])}
    assert moved == {name for name in before if name.endswith(".codebooks")}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"in_group_size": "8"}, "in_group_size"),
        ({"in_group_size": 0}, "in_group_size"),
        ({"nbits_per_codebook": 17}, "nbits_per_codebook"),
        ({"nbits_per_codebook": 9}, "codebooks of 9 bits"),
        ({"num_codebooks": 1}, "1 codebooks"),
        ({"in_group_size": 16}, "codebooks: expected"),
        ({"out_group_size": 2}, "codebooks: expected"),
    ],
)
def test_settings_that_contradict_the_tensors_are_refused(folder: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        aqlm.layers(configured(folder, **settings))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("scales", None),
        ("codebooks", torch.zeros(2, 255, 1, 8).half()),
        ("scales", torch.zeros(32, 1).half()),
        ("scales", torch.zeros(32, 1, 1, 1).int()),
        ("codes", torch.zeros(32, 4, 2).short()),
        ("codes", torch.zeros(0, 4, 2).char()),
    ],
)
def test_tensors_that_are_missing_or_of_another_shape_are_refused(
    folder: Path, kind: str, change: torch.Tensor | None
) -> None:
    with pytest.raises(FormatError, match=kind):
        load(rewritten(folder, {f"{Q}.{kind}": change}), device="cpu")


def test_settings_that_are_not_said_are_the_librarys(tmp_path: Path) -> None:
    folder = aqlm.example(tmp_path / "1x16", num_codebooks=1, nbits_per_codebook=16)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "aqlm"}
    (folder / "config.json").write_text(json.dumps(config))
    assert load(folder, device="cpu")(IDS).logits.isfinite().all()
