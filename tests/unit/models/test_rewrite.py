"""A rewritten folder opens with the libraries that own it, and keeps what lies beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

import forq
from forq.checkpoints import Checkpoint
from forq.checkpoints.containers import gguf as container
from forq.errors import FormatError
from forq.models.saved import write
from forq.scalars.moves import Move, Term, direction_seed
from tests import tiny_checkpoints, tiny_encoders
from tests.fixtures import bnb4
from tests.fixtures.gguf_architectures import made
from tests.fixtures.gguf_architectures import write as write_gguf

INDEX = "model.safetensors.index.json"


def logits(folder: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        found: torch.Tensor = model(tiny_checkpoints.ids()).logits
    return found


def one_shard(folder: Path) -> Path:
    """Names a folder's single file as the first of one, and adds the index."""
    shard = "model-00001-of-00001.safetensors"
    (folder / "model.safetensors").rename(folder / shard)
    with safe_open(folder / shard, "pt") as file:
        names = list(file.keys())
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_one_shard_keeps_its_index(tmp_path: Path) -> None:
    source = one_shard(tiny_checkpoints.folder(tmp_path / "float", "llama"))
    forq.quantize(source, tmp_path / "q", group_size=32)
    forq.export(tmp_path / "q", tmp_path / "out", "float32")
    for folder in (tmp_path / "q", tmp_path / "out"):
        written = json.loads((folder / INDEX).read_text())
        assert written["weight_map"] == {name: info.file for name, info in Checkpoint.open(folder).info.items()}
    model = forq.load(tmp_path / "q", device="cpu", kernel="reference")
    assert torch.allclose(logits(tmp_path / "out"), model(tiny_checkpoints.ids()).logits, atol=1e-3)


def test_a_save_that_writes_its_folder_anew_keeps_the_index_of_one_shard(tmp_path: Path) -> None:
    base = Checkpoint.open(one_shard(bnb4.example(tmp_path / "base", bnb_4bit_use_double_quant=True)))
    space = forq.space(forq.load(base.path, device="cpu", kernel="reference"), "scales")
    space.apply(Move((Term(direction_seed(0, 0), 0.05),)))
    write(base, space.exported(), tmp_path / "saved")
    found = Checkpoint.open(tmp_path / "saved").info
    assert not any("nested" in name for name in found) and found.keys() < base.info.keys()
    assert json.loads((tmp_path / "saved" / INDEX).read_text())["weight_map"].keys() == found.keys()


def test_sub_folders_are_copied_but_no_other_model(tmp_path: Path) -> None:
    source = tiny_encoders.folder(tmp_path / "float")
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in MODULES.items()]
    kept = {
        "modules.json": json.dumps(modules),
        "1_Pooling/config.json": '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}',
        "2_Dense/config.json": "{}",
        "2_Dense/model.safetensors": "as it is",
        "additional_chat_templates/tool_use.jinja": "{{ messages }}",
    }
    gone = {"onnx/model.onnx": "", "onnx/config.json": "{}", "pytorch_model.bin": "", "adapter/adapter.pt": ""}
    gone |= {"adapter/adapter_config.json": "{}", ".cache/x": ""}
    for name, content in (kept | gone).items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(content)
    forq.quantize(source, tmp_path / "q", group_size=16)
    for name, content in kept.items():
        assert (tmp_path / "q" / name).read_text() == content
    assert not any((tmp_path / "q" / name).exists() for name in gone)
    assert forq.load(tmp_path / "q", "cpu").pooling == ("cls",)


MODULES = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense"}


def test_a_gguf_model_in_several_files_is_exported_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = SimpleNamespace(save_pretrained=lambda folder: None)
    monkeypatch.setattr(container, "tokenizer_of", lambda path: empty)
    model, types = made("llama"), (gguf.GGMLQuantizationType.Q8_0,)
    one = write_gguf(tmp_path / "one" / "tiny.gguf", "llama", model, types)
    several = write_gguf(tmp_path / "several" / "tiny.gguf", "llama", model, types, split=6)
    assert len(list(several.parent.iterdir())) > 2
    for file in (one, several):
        forq.export(file, tmp_path / f"{file.parent.name}-out", "float32")
    found = [Checkpoint.open(tmp_path / f"{name}-out") for name in ("one", "several")]
    assert found[0].digest() == found[1].digest()
    assert {info.file for info in found[1].info.values()} == {"model.safetensors"}
    assert torch.equal(*(logits(ckpt.path) for ckpt in found))


@pytest.mark.parametrize("how", [{"group_size": 32}, {"to": "nf4"}])
def test_layers_that_hold_floats_transposed_are_exported_so(how: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=1)
    source = transformers.AutoModelForCausalLM.from_config(config)
    source.save_pretrained(tmp_path / "float")
    forq.quantize(tmp_path / "float", tmp_path / "q", **how)
    done = forq.export(tmp_path / "q", tmp_path / "out", "float32")
    assert (done.layers, done.changed) == (8, 0)
    # The square matrix too, whose shape tells nothing.
    name = "transformer.h.0.attn.c_proj.weight"
    written, exact = Checkpoint.open(tmp_path / "out").read(name), source.state_dict()[name]
    assert (written - exact).norm() < 0.2 * exact.norm() < (written.t() - exact).norm()
    model = forq.load(tmp_path / "q", device="cpu", kernel="reference")
    assert torch.allclose(logits(tmp_path / "out"), model(tiny_checkpoints.ids()).logits, atol=1e-3)


@pytest.mark.parametrize("sharded", [False, True])
def test_the_weights_that_the_configuration_names_are_read_as_in_transformers(sharded: bool, tmp_path: Path) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "x", "llama")
    file = "model-00001-of-00001.safetensors" if sharded else "other.safetensors"
    with safe_open(folder / "model.safetensors", "pt") as stored:
        tensors = {name: stored.get_tensor(name) * 1.5 for name in stored.keys()}  # noqa: SIM118  not a dict
    save_file(tensors, folder / file, metadata={"format": "pt"})
    named = "other.safetensors.index.json" if sharded else file
    if sharded:
        (folder / named).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, file)}))
    plain = logits(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": named}))
    model = forq.load(folder, device="cpu")
    assert torch.equal(model(tiny_checkpoints.ids()).logits, logits(folder))
    assert not torch.allclose(logits(folder), plain)
    assert any("model.safetensors beside it" in sentence for sentence in model.unlike)
    # A folder that is written anew holds these weights alone, under names that any loader finds.
    forq.export(forq.quantize(folder, tmp_path / "q", group_size=32).path, tmp_path / "out", "float32")
    want = forq.load(tmp_path / "q", device="cpu", kernel="reference")(tiny_checkpoints.ids()).logits
    assert torch.allclose(logits(tmp_path / "out"), want, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"transformers_weights": "../other.safetensors"}, "name a file of safetensors in the folder"),
        ({"transformers_weights": "missing.safetensors"}, "found 'missing.safetensors'"),
        ({"transformers_weights": "config.json"}, "found 'config.json'"),
        ({"configuration_files": ["config.json", "config.4.0.0.json"]}, "copy that one over config.json"),
    ],
)
def test_files_that_the_configuration_cannot_point_to_are_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "x", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(FormatError, match=said):
        Checkpoint.open(folder)


@pytest.mark.parametrize("named", [1, 2])
def test_of_a_tensor_in_two_shards_the_last_counts_as_in_transformers(named: int, tmp_path: Path) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "x", "llama")
    with safe_open(folder / "model.safetensors", "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  not a dict
    (folder / "model.safetensors").unlink()
    twice = "model.layers.0.mlp.up_proj.weight"
    first, last = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    norm = {"model.norm.weight": tensors.pop("model.norm.weight")}
    save_file(tensors, folder / first, metadata={"format": "pt"})
    save_file({**norm, twice: tensors[twice] * 3}, folder / last, metadata={"format": "pt"})
    where = dict.fromkeys(tensors, first) | dict.fromkeys(norm, last) | {twice: (first, last)[named - 1]}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    if named == 1:
        with pytest.raises(FormatError, match=rf"found {twice} in {first}, as the index says, and in {last}"):
            Checkpoint.open(folder)
    else:
        model = forq.load(folder, device="cpu")
        assert torch.equal(model(tiny_checkpoints.ids()).logits, logits(folder))
