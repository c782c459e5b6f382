"""A run on another format than GPTQ: it saves that format, only what moved differs, and the journal rebuilds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import forq as library
from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.models.convert.quantize import quantize
from forq.models.layout import layout
from tests import tiny_lm
from tests.fixtures import aqlm

OPTIONS = ("--set", "task.max_length=32", "--set", "task.validation_rows=16", "--set", "task.test_rows=16")
OPTIONS = ("--steps", "12", "--eval-every", "6", *OPTIONS)


@pytest.fixture(scope="module")
def asymmetric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 bits with zero points of their own."""
    source = tmp_path_factory.mktemp("float")
    tiny_lm.model("llama", vocab_size=300, tie_word_embeddings=True).save_pretrained(source)
    tiny_lm.tokenizer(vocabulary=300).save_pretrained(source)
    out = tmp_path_factory.mktemp("base") / "gptq"
    return quantize(source, out, group_size=16, sym=False, checkpoint_format="gptq_v2").path


@pytest.mark.parametrize(("move", "recipe"), [("scales,zeros", "qzo"), ("codes", "zoqo")])
@pytest.mark.parametrize("form", ["awq", "compressed-tensors"])
def test_a_run_saves_the_format_and_is_rebuilt(asymmetric, form, move, recipe, text, tmp_path, forq) -> None:
    base = library.export(asymmetric, tmp_path / "base", form).path
    how = ("--recipe", recipe, "--move", move, *OPTIONS)
    done = forq("tune", base, "--task", "text", "--data", text, "--out", tmp_path / "run", *how)
    assert done.returncode == 0, done.stderr
    old, new = Checkpoint.open(base), Checkpoint.open(tmp_path / "run" / "checkpoint")
    kinds = {"scales": "scale", "zeros": "zero", "codes": "qweight" if form == "awq" else "weight_packed"}
    ends = {name.rpartition(".")[2] for name in old.info if not torch.equal(old.read(name), new.read(name))}
    assert ends and all(any(kinds[kind] in end for kind in move.split(",")) for end in ends)
    assert layout(new).specs == layout(old).specs
    assert forq("verify", tmp_path / "run", "--base", base).returncode == 0
    assert "names: yes" in forq("verify", tmp_path / "run").stdout, "the journal alone knows what was saved"
    assert forq("replay", tmp_path / "run", "--base", base, "--out", tmp_path / "again").returncode == 0
    for file in new.folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def with_words(folder: Path, vocabulary: int) -> Path:
    """An example with room for a vocabulary, and that vocabulary."""
    ckpt, draw = Checkpoint.open(folder), torch.Generator().manual_seed(0)
    tensors = {name: ckpt.read(name) for name in ckpt.info}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.randn(vocabulary, tensors[name].shape[1], generator=draw).half()
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_file(folder / "model.safetensors", plan, tensors.items())
    (folder / "config.json").write_text(json.dumps(ckpt.config | {"vocab_size": vocabulary}))
    tiny_lm.tokenizer(vocabulary=vocabulary).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("moves", ["codes", "codebooks,codes"])
def test_the_indices_of_aqlm_move_and_are_rebuilt(moves, text, tmp_path, forq) -> None:
    base = with_words(aqlm.example(tmp_path / "base"), 300)
    how = ("--recipe", "zoqo" if moves == "codes" else "qzo", "--move", moves, *OPTIONS)
    done = forq("tune", base, "--task", "text", "--data", text, "--out", tmp_path / "run", *how)
    assert done.returncode == 0, done.stderr
    old, new = Checkpoint.open(base), Checkpoint.open(tmp_path / "run" / "checkpoint")
    moved = {name for name in old.info if not torch.equal(old.read(name), new.read(name))}
    assert {name.rpartition(".")[2] for name in moved} == set(moves.split(","))
    assert forq("verify", tmp_path / "run", "--base", base).returncode == 0
    assert "names: yes" in forq("verify", tmp_path / "run").stdout, "the journal alone knows what was saved"
    assert forq("replay", tmp_path / "run", "--base", base, "--out", tmp_path / "again").returncode == 0
    for file in new.folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
