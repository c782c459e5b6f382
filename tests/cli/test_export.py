"""A checkpoint in another format: the same numbers in other places, or floats and what those lose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import forq as library
from forq.checkpoints import Checkpoint
from forq.checkpoints.containers import gguf
from forq.demo import CHECKPOINT
from forq.errors import FormatError
from forq.models.convert.quantize import quantize
from tests import tiny_checkpoints
from tests.fixtures import CASES, example, gptq

IDS = tiny_checkpoints.ids(rows=2, length=9) % 64


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards, tied, zero points of their own."""
    root = tmp_path_factory.mktemp("export")
    floats = tiny_checkpoints.folder(root / "float", "llama-tied", torch.float16, "60KB")
    return quantize(floats, root / "gptq", group_size=32, sym=False, checkpoint_format="gptq_v2").path


def logits(folder: Path) -> torch.Tensor:
    return library.load(folder, device="cpu", kernel="reference")(IDS).logits


@pytest.mark.parametrize("to", ["awq", "gptq", "compressed-tensors"])
def test_integers_move_house_without_loss(source: Path, to: str, forq, tmp_path: Path) -> None:
    done = forq("export", source, "--to", to, "--out", tmp_path / to, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["changed"], told["max_change"]) == (0, 0.0) and told["layers"] == 14
    assert torch.equal(logits(tmp_path / to), logits(source))
    # Shards and their index too; quantize_config.json is GPTQ's.
    gone = set() if to == "gptq" else {"quantize_config.json"}
    assert {p.name for p in (tmp_path / to).iterdir()} == {p.name for p in source.iterdir()} - gone


def test_an_adapter_among_the_files_is_said_to_be_left_out(source: Path, forq, tmp_path: Path) -> None:
    """transformers adds it to the model, and no target but gguf-lora holds it."""
    folder = tmp_path / "m"
    shutil.copytree(source, folder)
    (folder / "adapter_config.json").write_text("{}")
    done = forq("export", folder, "--to", "awq", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert "adapter_config.json" in json.loads(done.stdout)["notes"][0]
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    floats = tiny_checkpoints.folder(tmp_path / "float", "llama")
    (floats / "adapter_config.json").write_text("{}")
    done = forq("quantize", floats, "--out", tmp_path / "q", "--group-size", 32)
    assert done.returncode == 0 and "adapter_config.json" in done.stderr
    assert not (tmp_path / "q" / "adapter_config.json").exists()


def test_there_and_back_again_is_the_same_bytes(source: Path, tmp_path: Path) -> None:
    library.export(source, tmp_path / "awq", "awq")
    library.export(tmp_path / "awq", tmp_path / "back", "gptq")
    old, new = Checkpoint.open(source), Checkpoint.open(tmp_path / "back")
    # Version 2 of the format stores zero points as they are; the way back is written as version 1.
    for name in old.info:
        if not name.endswith("qzeros"):
            assert torch.equal(old.read(name), new.read(name))
    assert old.info.keys() == new.info.keys()


def test_floats_say_what_rounding_changed(source: Path, forq, tmp_path: Path) -> None:
    for to, bound in (("float32", 0.0), ("float16", 5e-4), ("bfloat16", 4e-3)):
        told = json.loads(forq("export", source, "--to", to, "--out", tmp_path / to, "--json").stdout)
        assert told["max_change"] <= bound and (told["changed"] > 0) == (to != "float32")
        assert library.load(tmp_path / to, device="cpu").config.to_dict().get("quantization_config") is None
    assert torch.allclose(logits(tmp_path / "float32"), logits(source), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "variant"),
    [case for case in CASES if not case[0].startswith("onnx")],  # a graph is no model of transformers
)
def test_floats_of_any_format_answer_as_it_does(form: str, variant: str | None, tmp_path: Path, monkeypatch) -> None:
    # The examples have no vocabulary, which a GGUF file would hold.
    monkeypatch.setattr(gguf, "tokenizer_of", lambda path: SimpleNamespace(save_pretrained=lambda folder: None))
    base = Checkpoint.open(example(form, tmp_path / "base", variant))
    done = library.export(base.path, tmp_path / "float", "float32")
    assert done.changed == 0 and done.weights > 0
    assert torch.allclose(logits(tmp_path / "float"), logits(base.path), rtol=1e-4, atol=1e-4)


def test_outputs_of_a_single_word_move_house(tmp_path: Path) -> None:
    """Sixteen outputs of 2 bits: their zero points are one word."""
    two = gptq.example(tmp_path / "two", **gptq.VARIANTS["2-bit"])
    assert library.export(two, tmp_path / "out", "compressed-tensors").changed == 0
    assert torch.equal(logits(tmp_path / "out"), logits(two))


def test_what_a_format_cannot_say_is_refused(forq, tmp_path: Path) -> None:
    act_order = gptq.example(tmp_path / "act-order", desc_act=True)
    with pytest.raises(FormatError, match="act-order"):
        library.export(act_order, tmp_path / "out", "awq")
    assert not (tmp_path / "out").exists()
    done = forq("export", act_order, "--to", "awk", "--out", tmp_path / "out")
    assert done.returncode == 1 and "did you mean 'awq'" in done.stderr
    float16 = forq("export", act_order, "--to", "float16", "--out", tmp_path / "float")
    assert float16.returncode == 0, float16.stderr
    again = forq("export", tmp_path / "float", "--to", "awq", "--out", tmp_path / "out")
    assert again.returncode == 1 and "quantized layers" in again.stderr


@pytest.mark.parametrize("there", [False, True])
def test_an_unsound_export_leaves_nothing_behind(source: Path, there: bool, tmp_path: Path, monkeypatch) -> None:
    def unsound(*words: object) -> None:
        raise FormatError("not what was there")

    if there:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").touch()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("forq.models.convert.export._compared", unsound)
    with pytest.raises(FormatError, match="not what was there"):
        library.export(source, tmp_path / "out", "awq", overwrite=there)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_becomes_a_file_for_llama_cpp(text: Path, forq, tmp_path: Path) -> None:
    run = tmp_path / "run"
    short = ("--set", "task.validation_rows=16", "--set", "task.test_rows=16", "--steps", "2")
    done = forq("tune", CHECKPOINT, "--task", "text", "--data", text, "--out", run, *short)
    assert done.returncode == 0, done.stderr
    done = forq("export", run, "--to", "gguf", "--out", tmp_path / "gguf")
    assert done.returncode == 0 and "every weight is the same number" in done.stdout, done.stderr
    assert "28 in Q4_0" in done.stderr and [path.name for path in (tmp_path / "gguf").iterdir()] == ["model.gguf"]
    ours = library.load(run / "checkpoint", device="cpu", kernel="reference")(IDS).logits
    theirs = library.load(tmp_path / "gguf", device="cpu", kernel="reference")(IDS).logits
    assert (ours - theirs).abs().max() < 1e-5 * ours.abs().max()
    again = forq("export", run, "--to", "gguf", "--out", tmp_path / "gguf")
    assert again.returncode == 1 and "--overwrite" in again.stderr
    assert forq("export", run, "--to", "gguf", "--out", tmp_path / "gguf", "--overwrite").returncode == 0
    named = forq("export", run, "--to", "gguf", "--out", tmp_path / "tuned.gguf")
    assert named.returncode == 1 and "in which the file will be model.gguf" in named.stderr
    (tmp_path / "empty").mkdir()
    empty = forq("export", tmp_path / "empty", "--to", "gguf", "--out", tmp_path / "x")
    assert empty.returncode == 1 and not (tmp_path / "x").exists()
