"""A run on an ONNX graph: the graph is computed whole, and the journal rebuilds the file byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from forq.checkpoints import Checkpoint
from tests import tiny_lm
from tests.fixtures.onnx_llama import llama, rounded

SMALL = ("--set", "task.max_length=32", "--set", "task.validation_rows=16", "--set", "task.test_rows=16")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub's exports have it: the graph one below the tokenizer."""
    folder = tmp_path_factory.mktemp("repo")
    made = tiny_lm.model("llama", vocab_size=300, tie_word_embeddings=True)
    tensors = {name: tensor.numpy() for name, tensor in made.state_dict().items()}

    config = made.config.to_dict() | {"rope_theta": 10000.0}
    (folder / "onnx").mkdir()
    onnx.save_model(llama(config, tensors, rounded(tensors, 16)), str(folder / "onnx" / "model_q4.onnx"))
    made.config.save_pretrained(folder)
    tiny_lm.tokenizer(vocabulary=300).save_pretrained(folder)
    return folder


def moved_alone(forq, exported, run, kind) -> Checkpoint:
    """The saved graph: only tensors of a kind moved, all of them, and the journal rebuilds every file of it."""
    old, new, again = Checkpoint.open(exported), Checkpoint.open(run / "checkpoint"), run.parent / "again"
    moved = {name for name in old.info if not torch.equal(old.read(name), new.read(name))}
    assert moved == {name for name in old.info if name.endswith(kind)}
    assert forq("verify", run, "--base", exported).returncode == 0
    assert forq("replay", run, "--base", exported, "--out", again).returncode == 0
    for file in new.folder.rglob("*.*"):
        assert (again / file.relative_to(new.folder)).read_bytes() == file.read_bytes()
    return new


def test_a_run_saves_a_graph_that_plain_onnxruntime_loads(exported, text, tmp_path, forq) -> None:
    run, how = tmp_path / "run", ("--task", "text", "--data", text, *SMALL)
    done = forq("tune", exported, *how, "--out", run, "--steps", "12", "--eval-every", "6")
    assert done.returncode == 0, done.stderr
    new = moved_alone(forq, exported, run, ".scales")
    told = forq("eval", run / "checkpoint", *how, "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)
    session = onnxruntime.InferenceSession(str(new.path), providers=["CPUExecutionProvider"])
    ids = np.arange(1, 9)[None]
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": ids - 1}
    assert np.isfinite(session.run(None, given)[0]).all()


@pytest.mark.parametrize("recipe", ["qzo", "zoqo"])
def test_a_run_that_lost_its_last_lines_is_resumed_to_the_same_journal(exported, text, tmp_path, forq, recipe) -> None:
    run, how = tmp_path / "run", ("--task", "text", "--data", text, *SMALL, "--steps", "6", "--eval-every", "3")
    assert forq("tune", exported, *how, "--recipe", recipe, "--out", run).returncode == 0
    before = (run / "journal.jsonl").read_bytes()
    (run / "journal.jsonl").write_bytes(b"".join(before.splitlines(keepends=True)[:-4]))
    assert forq("tune", exported, "--out", run, "--resume").returncode == 0
    assert (run / "journal.jsonl").read_bytes() == before


def test_a_graph_carries_no_adapter(exported, text, tmp_path, forq) -> None:
    done = forq("tune", exported, "--task", "text", "--data", text, *SMALL, "--move", "lora", "--out", tmp_path / "run")
    assert done.returncode == 1 and "an ONNX model takes no adapter" in done.stderr
    assert not (tmp_path / "run").exists()


def test_codes_move_replay_and_save(exported, text, tmp_path, forq) -> None:
    run, how = tmp_path / "run", ("--task", "text", "--data", text, *SMALL)
    done = forq(
        "tune", exported, *how, "--out", run, "--recipe", "zoqo", "--steps", "12", "--eval-every", "6", "--json"
    )
    assert done.returncode == 0, done.stderr
    moved_alone(forq, exported, run, ".codes")
    told = forq("eval", run / "checkpoint", *how, "--json")
    assert json.loads(told.stdout)["loss"] == pytest.approx(json.loads(done.stdout)["test"]["after"]["loss"], rel=1e-5)


def test_a_symmetric_graph_has_no_zero_points_to_move(exported, text, tmp_path, forq) -> None:
    done = forq("tune", exported, "--task", "text", "--data", text, "--out", tmp_path / "run", "--move", "zeros")
    assert done.returncode != 0 and "expected a model with zeros to move, found codes, scales" in done.stderr


@pytest.mark.parametrize("words", [("inspect", "--json"), ("export", "--to", "gptq")])
def test_a_graph_is_inspected_and_not_exported(exported, words, tmp_path, forq) -> None:
    more = ("--out", tmp_path / "out") if words[0] == "export" else ()
    done = forq(words[0], exported, *words[1:], *more)
    if words[0] == "export":
        assert done.returncode != 0 and "ONNX graph" in done.stderr
        return
    said = json.loads(done.stdout)
    assert (said["format"], said["bits"], said["group_size"], said["layers"]) == ("onnx", 4, 16, 15)
    assert set(said["moves"]) == {"scales", "codes"}
    assert said["moves"]["codes"] == 16 * said["moves"]["scales"]
