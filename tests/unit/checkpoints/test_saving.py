"""A save holds one tensor of the run at a time, and makes no floats of integers."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forq
from forq.checkpoints import Checkpoint, Streamed, TensorInfo, streamed
from forq.checkpoints import tensor as header
from forq.coordinates import space as spaces
from forq.coordinates.leaf import Leaf, PackedLeaf
from forq.errors import FormatError, RunError
from forq.models.convert.quantize import quantize
from forq.models.leaves import trainable
from forq.runs import snapshots
from forq.runs.changes import changes, rounding_error
from forq.runs.snapshots import Snapshot
from tests import tiny_lm
from tests.fixtures import gguf

LEAVES = 14


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("saving")
    tiny_lm.model().half().save_pretrained(where / "float")
    tiny_lm.tokenizer().save_pretrained(where / "float")
    return quantize(where / "float", where / "q", 4, 16).path


@pytest.mark.parametrize(("recipe", "move"), [("qzo", "scales"), ("zoqo", "codes")])
def test_a_save_holds_at_most_two_tensors_in_memory(
    recipe: str, move: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays: list[weakref.ref[np.ndarray[Any, Any]]] = []
    most = 0

    def watched(read: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def reading(*given: object) -> torch.Tensor:
            nonlocal most
            array = read(*given).numpy().copy()  # the tensor, its views and its clones' source keep it alive
            arrays.append(weakref.ref(array))
            most = max(most, sum(ref() is not None for ref in arrays))
            return torch.from_numpy(array)

        return reading

    monkeypatch.setattr(snapshots, "read_tensor", watched(snapshots.read_tensor))
    monkeypatch.setattr(spaces, "stored", watched(spaces.stored))
    (tmp_path / "text.txt").write_text("once upon a time there was a grid of integers. " * 200)
    settings = {"task": {"max_length": 16}} | ({"estimator": {"eps": 1}} if move == "codes" else {})
    run = forq.tune(str(base), "text", tmp_path / "text.txt", recipe=recipe, move=move, steps=1, settings=settings)
    assert len(run.space.leaves) == LEAVES and len(arrays) >= 4 * LEAVES
    # The master and what the file holds of it, or one of them and the one before.
    assert most <= 3
    saved = Checkpoint.open(run.folder / "checkpoint")
    for leaf in run.space.leaves:
        assert torch.equal(saved.read(leaf.name), run.space.exported()[leaf.name])
    moved = json.loads((run.folder / "moved.json").read_text())
    assert {row["norm"] is None for row in moved} == {move == "codes"}
    assert run.rounding == 0.0 if move == "codes" else 0.0 < (run.rounding or 0.0) < 1e-3


def test_codes_of_a_gguf_file_are_saved_some_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_lm.model(hidden_size=64, intermediate_size=96).half().save_pretrained(tmp_path / "float")
    tiny_lm.tokenizer().save_pretrained(tmp_path / "float")
    base = forq.export(quantize(tmp_path / "float", tmp_path / "q", group_size=32).path, tmp_path / "base", "gguf").path
    (tmp_path / "text.txt").write_text("once upon a time there was a grid of integers. " * 200)
    settings = {"task": {"max_length": 16}, "estimator": {"eps": 1}}
    tuned = partial(forq.tune, str(base), "text", recipe="zoqo", move="codes", steps=1, settings=settings)
    stored, found, most = spaces.stored, [], 0

    def watched(leaf: Leaf, x: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, x.nbytes)
        return stored(leaf, x)

    monkeypatch.setattr(spaces, "stored", watched)
    for part in (1 << 22, 1 << 8):
        monkeypatch.setattr(streamed, "_PART_BYTES", part)
        most = 0
        run = tuned(tmp_path / "text.txt", out=tmp_path / f"{part}")
        largest = max(leaf.storage.nbytes for leaf in run.space.leaves if isinstance(leaf, PackedLeaf))
        assert most == largest if part > largest else most < largest  # queries and keys have rows in another order
        saved = Checkpoint.open(run.folder / "checkpoint")
        found.append((saved.digest(), json.loads((run.folder / "moved.json").read_text())))
        for leaf in run.space.leaves:
            assert torch.equal(saved.read(leaf.name), run.space.exported()[leaf.name])
    assert found[0] == found[1] and sum(row["changed"] for row in found[0][1])


@pytest.mark.parametrize("name", ["five", "k", "q8_0", "iq4"])
def test_rows_of_codes_are_rows_of_the_file(name: str, tmp_path: Path) -> None:
    leaves = trainable(forq.load(gguf.example(tmp_path / "file", **gguf.VARIANTS[name]), "cpu"), "codes")
    for leaf in leaves:
        assert isinstance(leaf, PackedLeaf) and leaf.by_rows
        whole = spaces.stored(leaf, leaf.storage)
        parts = [spaces.stored(leaf, part) for part in leaf.storage.split(7)]
        assert torch.equal(torch.cat(parts), whole) and len(parts) > 1


@pytest.mark.parametrize("name", ["k", "q8_0", "iq4", "ternary"])
def test_rows_of_a_tensor_are_read_and_written_alone(name: str, tmp_path: Path) -> None:
    ckpt = Checkpoint.open(gguf.example(tmp_path / "file", **gguf.VARIANTS[name]))
    before = ckpt.path.read_bytes()
    with ckpt.path.open("r+b") as stream:
        for info in ckpt.info.values():
            assert info.by_rows == (info.order is None and not info.turned)
            if info.by_rows:
                whole, some = info.read(stream), info.rows(1, len(info.read(stream)) - 1)
                assert torch.equal(some.read(stream).view(torch.uint8), whole[1:-1].view(torch.uint8))
                some.write(stream, some.read(stream))
    assert ckpt.path.read_bytes() == before


def test_rounding_counts_what_is_rounded_and_never_asks_for_integers(base: Path) -> None:
    leaves = trainable(forq.load(base, "cpu"), "scales,zeros,codes")

    def refused() -> torch.Tensor:
        raise AssertionError("integers have no rounding")

    exact = {leaf.name: torch.full_like(leaf.read(), 1.0001) for leaf in leaves if leaf.group == "scales"}
    masters = Streamed(
        {leaf.name: lambda name=leaf.name: exact[name] if name in exact else refused() for leaf in leaves}
    )
    near = float(torch.tensor(1.0001, dtype=torch.float16))
    assert rounding_error(leaves, masters) == pytest.approx(abs(near - 1.0001) / 1.0001, rel=1e-3)
    assert rounding_error([leaf for leaf in leaves if leaf.group != "scales"], masters) == 0.0


def test_a_tensor_that_does_not_fit_leaves_nothing_behind(base: Path, tmp_path: Path) -> None:
    ckpt = Checkpoint.open(base)
    first, *_, last = sorted(name for name in ckpt.info if name.endswith(".scales"))
    tensors = {first: ckpt.read(first), last: torch.full(ckpt.info[last].shape, math.inf)}
    with pytest.raises(FormatError, match=f"{last}: expected finite values that fit"):
        ckpt.save_patched(tmp_path / "out", tensors)
    assert not list(tmp_path.iterdir())


def test_a_snapshot_comes_back_bit_for_bit_and_a_torn_one_not_at_all(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6, dtype=torch.uint8).view(2, 3), "a": torch.randn(5), "c": torch.zeros(2).bfloat16()}
    path = tmp_path / "best.safetensors"
    Snapshot(tensors, 7).save(path)
    found = Snapshot.load(path)
    assert found is not None and found.step == 7 and set(found.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype and torch.equal(found.tensors[name], tensor)
    path.write_bytes(path.read_bytes()[:-1])
    assert Snapshot.load(path) is None and Snapshot.load(tmp_path / "none") is None
    with pytest.raises(RunError, match="nothing that was already written is lost"):
        Snapshot(tensors, 8).save(tmp_path / "no" / "folder.safetensors")


@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
def test_a_tensor_in_pieces_is_read_and_written_some_pieces_at_a_time(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = TensorInfo(torch.float16, (3, 5), "x", start=7, nbytes=30, piece=2, pitch=9)
    path, before = tmp_path / "x", bytes(range(7 + info.span + 4))
    path.write_bytes(before)
    want = b"".join(before[7 + 9 * place : 9 + 9 * place] for place in range(15))
    monkeypatch.setattr(header, "SPAN_BYTES", at_once)
    with path.open("r+b") as stream:
        found = info.read(stream)
        assert found.shape == (3, 5) and found.view(torch.uint8).numpy().tobytes() == want
        info.write(stream, found.clone())
        assert path.read_bytes() == before
        info.write(stream, torch.zeros(3, 5, dtype=torch.float16))
    after = path.read_bytes()
    changed = {place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    assert changed == {7 + 9 * piece + byte for piece in range(15) for byte in (0, 1)}
    path.write_bytes(before[: 7 + info.span - 1])
    with path.open("rb") as stream, pytest.raises(FormatError, match="it was truncated"):
        info.read(stream)


@pytest.mark.parametrize("name", ["k", "q8_0", "iq4", "ternary"])
def test_parts_of_a_tensor_are_the_tensor(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt = Checkpoint.open(gguf.example(tmp_path / "file", **gguf.VARIANTS[name]))
    whole = {tensor: ckpt.read(tensor).reshape(-1) for tensor in ckpt.info}
    digest = Checkpoint.open(ckpt.path).digest()
    monkeypatch.setattr(header, "SPAN_BYTES", 1 << 9)
    many = 0
    for tensor, want in whole.items():
        parts = list(ckpt.parts(tensor))
        many += len(parts) > 1
        assert all(part.dtype == want.dtype and part.ndim == 1 for part in parts)
        assert torch.equal(torch.cat(parts).view(torch.uint8), want.view(torch.uint8))
    assert many and Checkpoint.open(ckpt.path).digest() == digest


def test_codes_that_a_file_holds_as_blocks_are_exported_as_a_copy(tmp_path: Path) -> None:
    leaves = trainable(forq.load(gguf.example(tmp_path / "file", **gguf.VARIANTS["k"]), "cpu"), "codes")
    leaf = next(leaf for leaf in leaves if isinstance(leaf, PackedLeaf))
    before = spaces.stored(leaf, leaf.storage)
    want = before.clone()
    leaf.put(0, 1 - leaf.take(0, leaf.shape[1]).clamp(0, 1))
    assert torch.equal(before, want) and not torch.equal(spaces.stored(leaf, leaf.storage), want)


def test_changes_are_counted_over_all_parts_of_a_tensor(base: Path) -> None:
    leaf = next(leaf for leaf in trainable(forq.load(base, "cpu"), "scales"))
    old = leaf.read().reshape(-1)
    new = old.clone()
    new[:2] *= -1.0  # in the first part
    new[-1] += 1.0  # in the last
    (change,) = changes([leaf], lambda name: old.split(3), {leaf.name: new.view(leaf.shape)})
    assert (change.total, change.changed, change.flipped) == (old.numel(), 3, 2)
    assert change.moved == pytest.approx(float((new - old).double().norm()))
    assert change.norm == pytest.approx(float(old.double().norm()))
