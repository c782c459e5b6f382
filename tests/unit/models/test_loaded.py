"""A loaded model is the library's own model, and knows its checkpoint."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import forq
from forq.checkpoints import Checkpoint
from forq.models.loaded import LoadedModel
from forq.tokens.model import LanguageModel
from tests import tiny_checkpoints
from tests.chat_templates import CHATML, tokenizer
from tests.fixtures import example

IDS = torch.tensor([[3, 17, 33, 5]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.folder(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def model(folder: Path) -> Any:
    return forq.load(folder, device="cpu")


def test_it_is_the_librarys_model_under_the_librarys_names(model: Any, folder: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, LoadedModel) and isinstance(model, LanguageModel) and isinstance(model, type(theirs))
    assert (type(model).__name__, type(model).__module__) == (type(theirs).__name__, type(theirs).__module__)
    assert set(model.state_dict()) == set(theirs.state_dict())
    assert [name for name, _ in model.named_modules()] == [name for name, _ in theirs.named_modules()]
    assert type(forq.load(folder, device="cpu")) is type(model)
    torch.testing.assert_close(model(IDS).logits, theirs(IDS).logits)
    assert torch.equal(
        model.generate(IDS, max_new_tokens=4, do_sample=False), theirs.generate(IDS, max_new_tokens=4, do_sample=False)
    )


def test_hooks_and_modes_and_copies_are_a_modules_own(model: Any) -> None:
    seen = []
    handle = model.register_forward_hook(lambda module, args, out: seen.append(module))
    model(IDS)
    handle.remove()
    assert seen == [model] and not model.training
    assert model.train().lm_head.training and not model.eval().lm_head.training
    assert model.get_submodule("model.layers.0.mlp") is model.model.layers[0].mlp
    other = copy.deepcopy(model)
    assert other is not model and type(other) is type(model) and torch.equal(other(IDS).logits, model(IDS).logits)


def test_it_knows_its_checkpoint(model: Any, folder: Path) -> None:
    assert model.checkpoint.path == folder and model.kind == "causal"
    assert model.adapters == [] and model.unlike == () and model.takes_adapters
    assert set(model.names) == set(model.state_dict()) and set(model.names.values()) == set(model.checkpoint.info)
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert len(forq.add_lora(model, rank=2, targets="qv")) == len(model.adapters) == 4


def test_its_tokenizer_is_opened_once(folder: Path, tmp_path: Path) -> None:
    where = tiny_checkpoints.folder(tmp_path / "model", "llama")
    tokenizer(CHATML).save_pretrained(where)
    model = forq.load(where, device="cpu")
    assert "tokenizer" not in vars(model)
    assert model.tokenizer is model.tokenizer and model.tokenizer.rows == model.config.vocab_size


def test_no_attribute_of_a_loaded_model_hides_one_of_the_librarys() -> None:
    own = {name for name in vars(LoadedModel) | LoadedModel.__annotations__ if not name.startswith("_")}
    theirs = {"config", "device", "dtype", "generation_config"}  # declared for their types, and left to the library
    diffusers = pytest.importorskip("diffusers")
    for base in (transformers.PreTrainedModel, transformers.GenerationMixin, diffusers.ModelMixin, nn.Module):
        assert not {name for name in own - theirs if hasattr(base, name)}


def test_a_graph_answers_for_itself(tmp_path: Path) -> None:
    made = example("onnx", tmp_path)
    graph = forq.load(made, device="cpu")
    assert isinstance(graph, LoadedModel) and graph.kind == "causal" and not graph.takes_adapters
    assert Checkpoint.open(made).graph is not None and not graph.takes_packed(torch.zeros(1, 4))


def test_loading_needs_nothing_that_only_some_systems_have() -> None:
    """As on Windows: neither fcntl nor resource can be imported."""
    code = (
        "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "import forq.models.load, forq.models.space, forq.layers.heap, forq.inspection.memory, forq.inspection.pace\n"
        "import forq.inspection.process, forq.models.convert.export, forq.models.diffusion.encoders"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
