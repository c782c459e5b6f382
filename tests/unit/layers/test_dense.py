"""Float leaves: never displaced in storage, exact on return, one leaf for tied weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forq.coordinates.leaf import LazyLeaf
from forq.layers.dense import DenseLeaf
from forq.models.leaves import trainable
from forq.models.load import load
from tests import tiny_checkpoints

IDS = tiny_checkpoints.ids()


@pytest.fixture(scope="module", params=["llama", "llama-tied", "opt-350m"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.folder(tmp_path_factory.mktemp("dense") / request.param, request.param)


def test_an_overlay_shows_what_writing_would_show_and_touches_no_storage(folder: Path) -> None:
    model = load(folder, device="cpu")
    here = model(IDS).logits
    lazy = [leaf for leaf in trainable(model, "dense") if isinstance(leaf, LazyLeaf)]
    assert lazy
    for leaf in lazy:
        master = leaf.read()
        away = master + 0.01 * torch.randn(leaf.storage.shape, generator=torch.Generator().manual_seed(3))
        asked = []

        def overlay(out: torch.Tensor, away: torch.Tensor = away, asked: list[torch.Tensor] = asked) -> None:
            asked.append(out)
            out.copy_(away)

        leaf.overlay = overlay
        shown = model(IDS).logits
        assert torch.equal(leaf.storage, master) and asked
        assert {out.data_ptr() for out in asked} == {asked[0].data_ptr()} != {leaf.storage.data_ptr()}
        leaf.overlay = None
        leaf.write(away)
        assert torch.equal(model(IDS).logits, shown) and not torch.equal(shown, here)
        leaf.write(master)
        assert torch.equal(model(IDS).logits, here)


def test_all_layers_displaced_at_once_share_one_buffer(folder: Path) -> None:
    model = load(folder, device="cpu")
    lazy = [leaf for leaf in trainable(model, "dense") if isinstance(leaf, DenseLeaf)]
    for leaf in lazy:
        leaf.overlay = lambda out, leaf=leaf: out.copy_(leaf.storage * 1.5)
    shown = model(IDS).logits
    scratch = lazy[0].scratch
    assert scratch.memory_bytes == 4 * max(leaf.storage.numel() for leaf in lazy)
    for leaf in lazy:
        leaf.overlay = None
        leaf.write(leaf.read() * 1.5)
    assert torch.equal(model(IDS).logits, shown)


def test_small_leaves_are_written_in_place_and_alive(folder: Path) -> None:
    model = load(folder, device="cpu")
    here = model(IDS).logits
    small = [leaf for leaf in trainable(model, "all-float") if not isinstance(leaf, LazyLeaf)]
    assert {leaf.group for leaf in small} >= {"norms"}
    for leaf in small:
        # A key's bias shifts all scores of a row alike, which softmax does not see.
        if leaf.name.endswith("k_proj.bias"):
            continue
        master, place = leaf.read(), leaf.tensor.data_ptr()
        leaf.write(master + 0.1)
        assert not torch.equal(model(IDS).logits, here), leaf.name
        leaf.write(master)
        assert torch.equal(model(IDS).logits, here) and leaf.tensor.data_ptr() == place


def test_a_leaf_remembers_the_dtype_of_the_file(tmp_path: Path) -> None:
    model = load(tiny_checkpoints.folder(tmp_path / "x", "llama", torch.float16), device="cpu")
    for leaf in trainable(model, "all-float"):
        assert leaf.dtype == torch.float16 and leaf.read().dtype == torch.float32
