"""The laws of a format, held by every format against its tiny example (tests/fixtures)."""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.coordinates.leaf import SparseCodes, SparseLeaf
from forq.errors import ConfigError
from forq.formats import Format, all_formats, get
from forq.layers.linear import QuantLinear
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.saved import planned, write
from tests.fixtures import CASES, FORMATS, example

IDS = torch.tensor([[1, 5, 9, 2, 40, 33]])


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(filter(None, case)))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Format, Path]:
    name, variant = request.param
    return get(name), example(name, tmp_path_factory.mktemp(name) / "example", variant)


CONTINUOUS = ("scales", "offsets", "codebooks")


def live_leaves(model: Any) -> list[Any]:
    """All continuous tensors of the quantized layers."""
    held = {spec.group for module in model.modules() if isinstance(module, QuantLinear) for spec in module.specs}
    return trainable(model, ",".join(kind for kind in CONTINUOUS if kind in held))


def in_file(form: Format, ckpt: Checkpoint, name: str) -> torch.Tensor:
    """A live tensor as the format reads it."""
    spec, live = next((s, one) for s in form.layers(ckpt).values() for one in s.live if one.name == name)
    return form.read_live(ckpt, spec, live)


def test_there_are_formats() -> None:
    assert "gptq" in FORMATS and "base" not in FORMATS


def test_only_its_own_format_recognises_an_example(case: tuple[Format, Path]) -> None:
    ckpt = Checkpoint.open(case[1])
    assert [form for form in all_formats() if form.recognise(ckpt)] == [case[0]]


def test_retraction_changes_no_stored_byte(case: tuple[Format, Path]) -> None:
    model = load(case[1], device="cpu")
    for leaf in live_leaves(model):
        before, place = leaf.tensor.clone(), leaf.tensor.data_ptr()
        leaf.write(leaf.read())
        assert torch.equal(leaf.tensor.view(torch.int32), before.view(torch.int32))
        assert leaf.tensor.data_ptr() == place


def test_a_leaf_has_the_shape_dtype_and_values_of_the_file(case: tuple[Format, Path]) -> None:
    model = load(case[1], device="cpu")
    ckpt = Checkpoint.open(case[1])
    leaves = live_leaves(model)
    want = {live.name: live for spec in case[0].layers(ckpt).values() for live in spec.live}
    assert {leaf.name for leaf in leaves} == set(want)
    for leaf in leaves:
        stored = in_file(case[0], ckpt, leaf.name)
        assert (leaf.dtype, leaf.group) == (want[leaf.name].dtype, want[leaf.name].group)
        fresh = leaf.read()
        assert fresh.dtype == torch.float32 and torch.equal(fresh, stored.float())
        fresh.zero_()
        assert torch.equal(leaf.read(), stored.float())


def test_writing_one_leaf_changes_no_other_storage(case: tuple[Format, Path]) -> None:
    model = load(case[1], device="cpu")
    for leaf in live_leaves(model):
        before = _storages(model)
        leaf.write(leaf.read() * 1.5)
        after = _storages(model)
        assert [name for name in before if not torch.equal(before[name], after[name])] == [leaf.name]


def test_it_says_what_it_is(case: tuple[Format, Path]) -> None:
    model, about = load(case[1], device="cpu"), case[0].about
    assert {leaf.group for leaf in live_leaves(model)} <= set(about.moves)
    assert ("codes" in about.moves) == (type(case[0]).filed_codes is not Format.filed_codes)
    assert about.title and about.exported and about.library and about.layout


def test_a_displaced_leaf_changes_its_layer_and_the_return_restores_it(case: tuple[Format, Path]) -> None:
    model = load(case[1], device="cpu")
    for leaf in live_leaves(model):
        layer = _layer(model, leaf.name)
        x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
        here, master = layer(x), leaf.read()
        leaf.write(master * 1.01)
        assert not torch.equal(layer(x), here)
        leaf.write(master)
        assert torch.equal(layer(x), here)


@pytest.mark.parametrize("tokens", [1, 5, 70])
def test_the_forward_equals_a_float64_dequantisation_of_the_raw_buffers(case: tuple[Format, Path], tokens: int) -> None:
    reference = importlib.import_module(f"tests.reference.{case[0].name}")
    model = load(case[1], device="cpu")
    modules = reference.modules(case[1])
    assert modules
    for module in modules:
        layer = model.get_submodule(module)
        x = torch.randn(tokens, layer.in_features, generator=torch.Generator().manual_seed(2))
        want = x.double().numpy() @ reference.dequantise(case[1], module).T
        want = want if layer.bias is None else want + layer.bias.double().numpy()
        assert np.abs(layer(x).numpy() - want).max() < 1e-5 * np.abs(want).max()


def test_saving_replaces_only_what_moved(case: tuple[Format, Path], tmp_path: Path) -> None:
    model = load(case[1], device="cpu")
    leaves = live_leaves(model)[::2]
    given = {leaf.name: leaf.read() * 1.25 for leaf in leaves}
    plan = planned(model.checkpoint, given)
    report = write(model.checkpoint, given, tmp_path / "out")
    assert report.tensors == tuple(sorted(plan.tensors))
    old, new = Checkpoint.open(case[1]), Checkpoint.open(tmp_path / "out")
    assert set(old.info) - set(new.info) == plan.gone and not set(new.info) - set(old.info)
    moved = {name for name in new.info if not torch.equal(_bytes(old, name), _bytes(new, name))}
    assert moved == set(report.tensors) >= set(given)
    for leaf in leaves:
        assert torch.equal(new.read(leaf.name), given[leaf.name].to(leaf.dtype))
    assert {path.name for path in old.folder.iterdir()} == {path.name for path in (tmp_path / "out").iterdir()}
    if plan.patches:
        assert old.info == new.info and moved == set(given) and old.config == new.config
    else:  # a declared exception, of the quantized layers alone
        assert case[0].about.exceptions
        assert moved | plan.gone <= {name for spec in case[0].layers(old).values() for name in spec.tensors}


def test_saving_what_did_not_move_gives_the_same_files(case: tuple[Format, Path], tmp_path: Path) -> None:
    model = load(case[1], device="cpu")
    report = write(model.checkpoint, {leaf.name: leaf.read() for leaf in live_leaves(model)}, tmp_path / "out")
    assert report.max_rounding == 0.0
    for path in Checkpoint.open(case[1]).folder.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_saved_model_is_the_model_shown(case: tuple[Format, Path], tmp_path: Path) -> None:
    model = load(case[1], device="cpu")
    moved = {}
    for leaf in live_leaves(model):
        moved[leaf.name] = (leaf.read() * 1.1).to(leaf.dtype)
        leaf.write(moved[leaf.name].float())
    write(model.checkpoint, moved, tmp_path / "out")
    assert torch.equal(load(tmp_path / "out", device="cpu")(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("kind", ["codes", "zeros"])
def test_integers_are_packed_as_the_file_packs_them(case: tuple[Format, Path], kind: str, tmp_path: Path) -> None:
    if kind not in case[0].about.moves:
        pytest.skip(f"{case[0].about.title} has no {kind} to move")
    model, ckpt = load(case[1], device="cpu"), Checkpoint.open(case[1])
    try:
        leaves = trainable(model, kind)
    except ConfigError:
        pytest.skip(f"this variant has no {kind}")
    moved = {}
    for leaf in leaves:
        here = leaf.read()
        packed = leaf.packed(leaf.storage if kind == "codes" else here)
        assert packed.dtype == leaf.dtype and torch.equal(packed, ckpt.read(leaf.name))
        low, high = leaf.range
        assert low <= here.min() and here.max() <= high
        there = torch.where(here < high, here + 1, here - 1)
        leaf.write(there)
        assert torch.equal(leaf.read(), there)
        moved[leaf.name] = leaf.packed(leaf.storage if kind == "codes" else there)
    write(model.checkpoint, moved, tmp_path / "out")
    again = load(tmp_path / "out", device="cpu")
    trainable(again, kind)  # the same kernel
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def code_leaves(model: Any, case: tuple[Format, Path]) -> list[Any]:
    if "codes" not in case[0].about.moves:
        pytest.skip(f"{case[0].about.title} has no codes to move")
    return trainable(model, "codes")


def other_codes(leaf: Any) -> torch.Tensor:
    """Codes anywhere in their range, for every coordinate."""
    draw = torch.Generator().manual_seed(len(leaf.name))
    return torch.randint(0, leaf.range[1] + 1, leaf.shape, generator=draw).float()


def test_codes_that_are_shown_are_those_that_would_be_stored(case: tuple[Format, Path]) -> None:
    model = load(case[1], device="cpu")
    layers = {one.filed_codes.name: one for one in model.modules() if isinstance(one, QuantLinear) and one.filed_codes}
    leaves = code_leaves(model, case)
    assert {leaf.name for leaf in leaves} == set(layers) and isinstance(leaves[0], SparseLeaf)
    for leaf in leaves:
        layer, before, there = layers[leaf.name], leaf.storage.clone(), other_codes(leaf)
        x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
        places = torch.arange(3, there.numel(), 7)
        codes = SparseCodes(places, there.view(-1)[places].int())
        here, shown = layer(x), {}

        def overlay(out: torch.Tensor, start: int = 0, there: torch.Tensor = there) -> None:
            out.view(-1).copy_(there.view(-1)[start : start + out.numel()])

        for way, show in (("overlay", overlay), ("sparse", codes)):
            setattr(leaf, way, show)
            shown[way] = layer(x)
            setattr(leaf, way, None)
            assert not torch.equal(shown[way], here)
            assert torch.equal(leaf.storage, before) and torch.equal(layer(x), here)
        leaf.put_at(codes)
        assert torch.equal(leaf.at(places), codes.x) and torch.equal(leaf.read().view(-1)[places], codes.x.float())
        held = {"sparse": layer(x)}
        leaf.write(there)
        held["overlay"] = layer(x)
        assert all((shown[way] - y).abs().max() < 1e-5 * y.abs().max() for way, y in held.items())


def test_codes_are_kept_as_leaves_are(case: tuple[Format, Path]) -> None:
    model = load(case[1], device="cpu")
    for leaf in code_leaves(model, case):
        before, place = leaf.storage.clone(), leaf.storage.data_ptr()
        leaf.write(leaf.read())
        assert torch.equal(leaf.storage, before) and leaf.storage.data_ptr() == place
        held = _storages(model)
        leaf.write(other_codes(leaf))
        changed = [name for name, tensor in _storages(model).items() if not torch.equal(held[name], tensor)]
        assert len(changed) == 1 and changed[0].endswith("#codes")
        assert int(leaf.read().max()) <= leaf.range[1] and torch.equal(leaf.read(), other_codes(leaf))
        size, rows = leaf.shape[1], leaf.shape[0]
        assert torch.equal(leaf.take(size, 3 * size).view(2, size), leaf.read()[1:3].int()) and rows > 3


def test_a_code_that_moves_changes_its_own_bytes_of_the_file_alone(case: tuple[Format, Path], tmp_path: Path) -> None:
    model = load(case[1], device="cpu")
    moved = {}
    for leaf in code_leaves(model, case)[::2]:
        place = torch.tensor([leaf.shape[1] + 5])
        leaf.put_at(SparseCodes(place, leaf.at(place) ^ 1))
        moved[leaf.name] = leaf.packed(leaf.storage)
    plan = planned(model.checkpoint, moved)
    assert plan.patches
    write(model.checkpoint, moved, tmp_path / "out")
    old, new = Checkpoint.open(case[1]), Checkpoint.open(tmp_path / "out")
    assert old.info == new.info
    for name in old.info:
        changed = int((_bytes(old, name) != _bytes(new, name)).sum())
        # Two where a code's bits lie in two places.
        assert 1 <= changed <= 2 if name in moved else changed == 0


def _layer(model: Any, leaf_name: str) -> QuantLinear:
    layers = [m for m in model.modules() if isinstance(m, QuantLinear)]
    (found,) = (m for m in layers if any(spec.name == leaf_name for spec in m.specs))
    return found


def _storages(model: Any) -> dict[str, torch.Tensor]:
    held = {name: value.clone() for name, value in model.named_parameters()}
    for module in model.modules():
        if isinstance(module, QuantLinear):
            held |= {spec.name: tensor.clone() for spec, tensor in module.live.items()}
            for field in fields(module.frozen):
                value = getattr(module.frozen, field.name)
                # Continuous zero points are a view of a live tensor.
                if isinstance(value, torch.Tensor) and not (field.name == "zeros" and value.is_floating_point()):
                    held[f"{module.leaf_name}#{field.name}"] = value.clone()
    return held


def _bytes(ckpt: Checkpoint, name: str) -> torch.Tensor:
    return ckpt.read(name).contiguous().reshape(-1).view(torch.uint8)
