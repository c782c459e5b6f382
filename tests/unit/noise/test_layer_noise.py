"""Directions that multiply whole layers: one z for a layer, shared by its scale and its minimum."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from forq.errors import ConfigError
from forq.models.leaves import trainable
from forq.models.load import load
from forq.noise.bits import Bits, leaf_id
from forq.noise.law import AUTO, law, sized
from forq.plugins import registry
from forq.recipes import recipe
from forq.recipes.probe import USUAL
from forq.recipes.settings import Settings, settings
from forq.runs.config import TaskConfig, complete
from forq.runs.journal import read
from forq.runs.older_runs import with_settled
from forq.runs.replay import replay
from forq.runs.settled import CLASSES, settled_method
from forq.runs.trainer import Trainer
from forq.runs.tune import tune
from forq.scalars.moves import Move, Term, direction_seed
from forq.scalars.quadratic import DAMPINGS
from tests.fixtures import example
from tests.unit.tasks.test_balanced import opened

LAYERS = "layers:rademacher"


def test_a_leaf_has_one_number_wherever_it_is_drawn():
    bits = Bits(direction_seed(1, 2), leaf_id("a.scales"))
    one, out = np.empty(1, np.float32), np.empty(300, np.float32)
    law("rademacher").draw(bits, 0, one)
    law(LAYERS).draw(bits, 117, out)
    assert (out == one[0]).all()
    assert law(LAYERS).portable and law(LAYERS).of_layer and not law("rows:rademacher").of_layer
    signs = set()
    for seed in range(20):
        law(LAYERS).draw(Bits(direction_seed(0, seed), leaf_id("a")), 0, one)
        signs.add(float(one[0]))
    assert signs == {-1.0, 1.0}


def test_the_law_within_is_named_and_sized():
    with pytest.raises(ConfigError, match="layers:rademacher"):
        law("layers")
    assert sized("layers:cells:auto", 0.5) == "layers:" + sized("cells:auto", 0.5)


@pytest.fixture
def films(tmp_path):
    return opened(tmp_path, "sst2", "causal", "auto")


def method(name: str, **changes: object) -> Settings:
    return recipe(name).settings.model_copy(update=changes)


@pytest.mark.parametrize("name", ["qzo", "qzo-shared"])
def test_classes_multiply_whole_layers_and_others_do_not(tmp_path, name, films):
    leaves = trainable(load(example("gguf", tmp_path / "gguf"), device="cpu"))
    for task in (films, opened(tmp_path, "cb", "masked", "mask")):
        found, _ = settled_method(method(name), leaves, task, profile=None)
        assert found.estimator.noise == CLASSES and found.unit == "signed" and found.by_layer and not found.by_row
    assert settled_method(method(name), leaves, object(), profile=None)[0].estimator.noise == USUAL
    more = method(name, move="scales,norms")
    assert settled_method(more, leaves, films, profile=None)[0].estimator.noise == USUAL


def test_a_noise_that_is_named_stays(tmp_path, films):
    leaves = trainable(load(example("gptq", tmp_path / "gptq"), device="cpu"))
    named = recipe("qzo-shared").settings.estimator.model_copy(update={"noise": ("gaussian",)})
    found, _ = settled_method(method("qzo-shared", estimator=named), leaves, films, profile=None)
    assert found.estimator.noise == ("gaussian",) and found.unit == "relative"


@pytest.mark.parametrize("name", ["qzo-shared", "qzo-slopes"])
def test_a_unit_that_is_no_factor_stays(tmp_path, films, name):
    leaves = trainable(load(example("gptq", tmp_path / "gptq"), device="cpu"))
    found, _ = settled_method(method(name, unit="absolute"), leaves, films, profile=None)
    assert found.unit == "absolute" and found.estimator.noise == USUAL
    begun, _ = settled_method(method("qzo-shared"), leaves, films, profile=None)
    assert begun.unit == "signed" and with_settled(method("qzo-shared", unit="absolute"), begun).unit == "absolute"


def test_rows_of_their_own_have_no_factor_of_a_layer():
    tree = recipe("qzo").settings.model_dump()
    with pytest.raises(ConfigError, match="whole layer"):
        settings({**tree, "estimator": {**tree["estimator"], "noise": (LAYERS,)}})


def test_a_run_keeps_the_noise_it_settled(tmp_path, films):
    leaves = trainable(load(example("gptq", tmp_path / "gptq"), device="cpu"))
    assert method("qzo").estimator.noise == (AUTO,)
    for name, task in (("qzo", films), ("qzo-shared", films), ("qzo-shared", object())):
        begun, _ = settled_method(method(name), leaves, task, profile=None)
        again = with_settled(method(name), begun)
        assert (again.estimator, again.unit) == (begun.estimator, begun.unit)


def test_scale_and_minimum_of_a_layer_move_by_one_factor(tmp_path, films):
    path = example("gguf", tmp_path / "gguf", "q4_1")
    config = complete("qzo", checkpoint=str(path), task=TaskConfig(name="sst2", data="x"), steps=1)
    space = Trainer(config, load(path, device="cpu"), films).space
    before = {name: x.clone() for name, x in space.masters().items()}
    space.apply(Move((Term(direction_seed(0, 0), 0.25, LAYERS),)))
    factors: dict[str, set[float]] = {}
    for name, moved in space.masters().items():
        live = before[name].abs() > 1e-5
        found = {round(x, 3) for x in (moved[live] / before[name][live]).tolist()}
        factors.setdefault(name.rpartition(".")[0], set()).update(found)
    assert {name.rpartition(".")[2] for name in before} == {"d", "m"}
    assert all(len(found) == 1 for found in factors.values()), factors
    assert set().union(*factors.values()) == {0.75, 1.25}


def test_a_run_rebuilds_from_its_journal_and_resumes(base, tmp_path):
    """Keys of layers stand in the header; a stopped run ends as one that was never stopped."""
    data = tmp_path / "sst2"
    data.mkdir()
    registry.get("tasks", "sst2").example(data)
    how: dict[str, Any] = {"steps": 4, "eval_every": 2, "settings": {"task": {"max_length": 48}}}
    whole = tune(base, "sst2", data, out=tmp_path / "whole", **how)
    header = read(whole.journal).header
    assert header["method"]["estimator"]["noise"] == list(CLASSES) and header["method"]["unit"] == "signed"
    replay(whole.folder, base, tmp_path / "again")
    name = "checkpoint/model.safetensors"
    assert (tmp_path / "again/model.safetensors").read_bytes() == (whole.folder / name).read_bytes()
    tune(base, "sst2", data, out=tmp_path / "parts", **how | {"steps": 4}, resume=True)
    assert (tmp_path / "parts" / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_run_has_a_damping_of_its_own_number(base, tmp_path):
    """The oracle judges the same dampings that the rule counts, one more than the usual five."""
    data = tmp_path / "sst2"
    data.mkdir()
    registry.get("tasks", "sst2").example(data)
    how: dict[str, Any] = {"steps": 2, "eval_every": 2, "settings": {"task": {"max_length": 48}, "rule.damping": 0.3}}
    run = tune(base, "sst2", data, out=tmp_path / "run", **how)
    trained = [line for line in read(run.journal).lines if line.kind == "train"]
    assert [len(line.losses[0].confirmed or ()) for line in trained] == [len(DAMPINGS) + 1] * 2
    notes = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [note["damping"] for note in notes if "damping" in note] == [0.3, 0.3]
    replay(run.folder, base, tmp_path / "again")
