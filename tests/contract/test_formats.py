"""The laws of a format, held by every module of forq.formats against its own tiny example."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forq import registry
from forq.formats.checkpoint import Checkpoint
from forq.models.leaves import trainable
from forq.models.load import load
from forq.quant.linear import QuantLinear

NAMES = registry.names("formats")
IDS = torch.tensor([[1, 5, 9, 2, 40, 33]])


CASES = [
    (name, variant) for name in NAMES for variant in (None, *getattr(registry.get("formats", name), "VARIANTS", ()))
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(filter(None, case)))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    name, variant = request.param
    form = registry.get("formats", name)
    changes = {} if variant is None else form.VARIANTS[variant]
    return form, form.example(tmp_path_factory.mktemp(name) / "example", **changes)


def test_there_are_formats() -> None:
    assert "gptq" in NAMES and "checkpoint" not in NAMES


def test_only_its_own_format_recognises_an_example(case: tuple[Any, Path]) -> None:
    ckpt = Checkpoint.open(case[1])
    claims = [name for name in NAMES if registry.get("formats", name).recognise(ckpt)]
    assert claims == [case[0].__name__.rpartition(".")[2]]


def test_retraction_changes_no_stored_byte(case: tuple[Any, Path]) -> None:
    model = load(case[1], device="cpu")
    for leaf in trainable(model):
        layer = _layer(model, leaf.name)
        before, place = layer.scales.clone(), layer.scales.data_ptr()
        leaf.write(leaf.read())
        assert torch.equal(layer.scales.view(torch.int32), before.view(torch.int32))
        assert layer.scales.data_ptr() == place


def test_a_leaf_has_the_shape_dtype_and_values_of_the_file(case: tuple[Any, Path]) -> None:
    model = load(case[1], device="cpu")
    ckpt = Checkpoint.open(case[1])
    leaves = trainable(model)
    assert {leaf.name for leaf in leaves} == {
        live.name for spec in case[0].layers(ckpt).values() for live in spec.live if live.group == "scales"
    }
    for leaf in leaves:
        stored = ckpt.read(leaf.name)
        assert leaf.dtype == stored.dtype and leaf.group == "scales"
        fresh = leaf.read()
        assert fresh.dtype == torch.float32 and torch.equal(fresh, stored.float())
        fresh.zero_()
        assert torch.equal(leaf.read(), stored.float())


def test_writing_one_leaf_changes_no_other_storage(case: tuple[Any, Path]) -> None:
    model = load(case[1], device="cpu")
    for leaf in trainable(model):
        before = _storages(model)
        leaf.write(leaf.read() * 1.5)
        after = _storages(model)
        assert [name for name in before if not torch.equal(before[name], after[name])] == [leaf.name]


def test_a_displaced_leaf_changes_its_layer_and_the_return_restores_it(case: tuple[Any, Path]) -> None:
    model = load(case[1], device="cpu")
    for leaf in trainable(model):
        layer = _layer(model, leaf.name)
        x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
        here, master = layer(x), leaf.read()
        leaf.write(master * 1.01)
        assert not torch.equal(layer(x), here)
        leaf.write(master)
        assert torch.equal(layer(x), here)


@pytest.mark.parametrize("tokens", [1, 5, 70])
def test_the_forward_equals_a_float64_dequantisation_of_the_raw_buffers(case: tuple[Any, Path], tokens: int) -> None:
    reference = importlib.import_module(f"tests.reference.{case[0].__name__.rpartition('.')[2]}")
    model = load(case[1], device="cpu")
    modules = reference.modules(case[1])
    assert modules
    for module in modules:
        layer = model.get_submodule(module)
        x = torch.randn(tokens, layer.in_features, generator=torch.Generator().manual_seed(2))
        want = x.double().numpy() @ reference.dequantise(case[1], module).T
        assert np.abs(layer(x).numpy() - want).max() < 1e-5 * np.abs(want).max()


def test_saving_replaces_only_what_moved(case: tuple[Any, Path], tmp_path: Path) -> None:
    model = load(case[1], device="cpu")
    leaves = trainable(model)[::2]
    report = model.checkpoint.save_patched(tmp_path / "out", {leaf.name: leaf.read() * 1.25 for leaf in leaves})
    assert report.tensors == tuple(leaf.name for leaf in leaves)
    old, new = Checkpoint.open(case[1]), Checkpoint.open(tmp_path / "out")
    assert old.info == new.info
    moved = {name for name in old.info if not torch.equal(_bytes(old, name), _bytes(new, name))}
    assert moved == set(report.tensors)
    for leaf in leaves:
        assert torch.equal(new.read(leaf.name), (leaf.read() * 1.25).to(leaf.dtype))
    assert {path.name for path in case[1].iterdir()} == {path.name for path in (tmp_path / "out").iterdir()}


def test_saving_what_did_not_move_gives_the_same_files(case: tuple[Any, Path], tmp_path: Path) -> None:
    model = load(case[1], device="cpu")
    report = model.checkpoint.save_patched(tmp_path / "out", {leaf.name: leaf.read() for leaf in trainable(model)})
    assert report.max_rounding == 0.0
    for path in case[1].iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_saved_model_is_the_model_shown(case: tuple[Any, Path], tmp_path: Path) -> None:
    model = load(case[1], device="cpu")
    moved = {}
    for leaf in trainable(model):
        moved[leaf.name] = (leaf.read() * 1.1).to(leaf.dtype)
        leaf.write(moved[leaf.name].float())
    model.checkpoint.save_patched(tmp_path / "out", moved)
    assert torch.equal(load(tmp_path / "out", device="cpu")(IDS).logits, model(IDS).logits)


def _layer(model: Any, leaf_name: str) -> QuantLinear:
    (found,) = (m for m in model.modules() if isinstance(m, QuantLinear) and m.leaf_name == leaf_name)
    return found


def _storages(model: Any) -> dict[str, torch.Tensor]:
    held = {name: value.clone() for name, value in model.named_parameters()}
    for module in model.modules():
        if isinstance(module, QuantLinear):
            held[module.leaf_name] = module.scales.clone()
            held[module.leaf_name + "#codes"] = module.weight.codes.clone()
            held[module.leaf_name + "#zeros"] = module.weight.zeros.clone()
    return held


def _bytes(ckpt: Checkpoint, name: str) -> torch.Tensor:
    return ckpt.read(name).contiguous().reshape(-1).view(torch.uint8)
