"""AQLM: what moves and what cannot, the shapes of the published kinds, and ways a file can contradict itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.coordinates.domain import DOMAINS, usual_unit
from forq.coordinates.leaf import SparseCodes
from forq.coordinates.space import Space, digest
from forq.errors import FormatError
from forq.formats import get
from forq.formats.codecs.aqlm_order import order
from forq.layers.leaves import CodeLeaf
from forq.layers.scratch import Scratch
from forq.models.load import load
from forq.models.space import space
from forq.runs import replay_leaves as filed
from forq.scalars.moves import Move, Term, direction_seed
from tests.fixtures import aqlm
from tests.reference import aqlm as reference

Q = "model.layers.0.self_attn.q_proj"
IDS = torch.tensor([[1, 5, 9, 2]])
ORDERS = {
    (1, 8): "9d34149fbd1f",
    (5, 3): "30eabf3b8199",
    (8, 8): "037a5ae29de2",
    (10, 4): "e736087b2bad",
    (12, 2): "5e1d61636abd",
}
"""Digests of what a journal's codes mean: an order that changes takes a new law."""


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
    layer.frozen.fill(tuple(layer.live.values()), 3, 7, part, Scratch())
    assert torch.equal(part, whole[3:7])


def test_a_step_of_a_code_is_to_a_near_vector_of_the_files_own(folder: Path) -> None:
    layer: Any = load(folder, device="cpu").get_submodule(Q)
    books = Checkpoint.open(folder).read(f"{Q}.codebooks").double().flatten(2)
    leaf = CodeLeaf(layer, layer.filed_codes)
    assert leaf.shape == (32, 4 * 2) and leaf.range == (0, 255)
    leaf.write(torch.arange(256.0).view(32, 8))  # ranks 0, 2, 4 … of one codebook, 1, 3, 5 … of the other
    index = leaf.packed(leaf.storage).int() % 256
    for number, book in enumerate(books):
        walk = book[order(book.numpy())]
        assert torch.equal(book[index[..., number].flatten().long()], walk[number::2])
        steps, blind = ((one[1:] - one[:-1]).norm(dim=1).mean() for one in (walk, book))
        assert steps < 0.7 * blind


@pytest.mark.parametrize(("bits", "width"), [(1, 8), (5, 3), (8, 8), (10, 4), (12, 2)])
def test_an_order_has_every_vector_once_and_is_the_same_everywhere(bits: int, width: int) -> None:
    place = np.arange((1 << bits) * width, dtype=np.int64)
    vectors = (place * place * 7919 % 65521 % 401 - 200.0).reshape(-1, width) / 256
    found = order(vectors)
    assert np.array_equal(np.sort(found), np.arange(1 << bits))
    assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest()[:12] == ORDERS[bits, width]


def test_vectors_that_are_alike_or_no_numbers_have_an_order_too() -> None:
    for vectors in (np.zeros((512, 4)), np.full((512, 4), np.nan), np.full((64, 4), np.inf)):
        assert np.array_equal(np.sort(order(vectors)), np.arange(len(vectors)))


def test_codes_and_codebooks_move_together_and_are_rebuilt_from_the_file(folder: Path) -> None:
    moving = space(load(folder, device="cpu"), "codebooks,codes")
    ranks = {leaf.name: leaf.read() for leaf in moving.leaves if leaf.group == "codes"}
    listed = [(name, group, axis, getattr(torch, dtype), None) for name, group, axis, dtype in moving.table()]
    played = Space(
        filed.leaves(listed, Checkpoint.open(folder)),
        lambda leaf, x: DOMAINS[usual_unit(leaf.group, "relative")](leaf, x),
    )
    moves = [Move((Term(3, 0.4, group="codebooks"),)), Move((Term(4, 1.0, "sparse:0.01", "codes"),))]
    moves += [Move((Term(5, 0.3, group="codebooks"), Term(6, 1.0, "uniform_grid:2", "codes")))]
    moving.apply(moves[0])
    played.apply(moves[0])
    # The order is that of the file's vectors, wherever they have gone.
    assert all(torch.equal(leaf.read(), ranks[leaf.name]) for leaf in moving.leaves if leaf.group == "codes")
    for move in moves[1:]:
        assert moving.apply(move) == played.apply(move)
    assert digest(moving.exported()) == digest(played.exported())


def test_an_index_that_stays_keeps_its_bytes_however_it_was_written(tmp_path: Path) -> None:
    folder = aqlm.example(tmp_path / "narrow", **aqlm.VARIANTS["3x5-in-16-float32"])
    codes = Checkpoint.open(folder).read(f"{Q}.codes") & 31  # 0 … 31, where the library writes -16 … 15
    ckpt = rewritten(folder, {f"{Q}.codes": codes})
    layer: Any = load(ckpt, device="cpu").get_submodule(Q)
    leaf = CodeLeaf(layer, layer.filed_codes)
    leaf.write(leaf.read())
    assert torch.equal(leaf.packed(leaf.storage), codes)
    places = torch.tensor([7, 40])
    leaf.put_at(SparseCodes(places, torch.stack((leaf.at(places)[0], leaf.at(places)[1] ^ 1))))
    changed = leaf.packed(leaf.storage) != codes
    assert int(changed.sum()) == 1 and leaf.packed(leaf.storage)[changed] in range(-16, 16)


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
        get("aqlm").layers(configured(folder, **settings))


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
