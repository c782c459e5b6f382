"""A pipeline whose transformer is a GGUF file, through the command line: only the bytes that moved differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from forq.checkpoints import Checkpoint
from tests import tiny_pipeline

TASK = ("--task", "text-to-image", "--resolution", "28", "--set", f"task.text_tokens={tiny_pipeline.TEXT_TOKENS}")
SMALL = ("--set", "task.batch_rows=4", "--set", "task.sample_steps=2", "--set", "task.samples=0")
FILE = "transformer/transformer.gguf"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    return tiny_pipeline.in_gguf(tiny_pipeline.save(folder / "float"), folder / "sd3")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_pipeline.pictures(tmp_path_factory.mktemp("pictures"), count=10)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("move", "field"), [("scales", "d"), ("codes", "qs")])
def test_a_run_gives_the_folder_back_with_only_its_moved_bytes_changed(
    move, field, pipeline, data, tmp_path, forq
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    how = ("tune", pipeline, *TASK, "--data", data, *SMALL, "--steps", "2", "--eval-every", "2", "--out", run)
    done = forq(*how, *(("--recipe", "qes", "--move", "codes") if move == "codes" else ()))
    assert done.returncode == 0, done.stderr
    old, new = files(pipeline), files(run / "checkpoint")
    assert old.keys() == new.keys() and {name for name in old if old[name] != new[name]} == {FILE}
    before, after = Checkpoint.open(pipeline), Checkpoint.open(run / "checkpoint")
    moved = {name for name in before.info if not torch.equal(before.read(name), after.read(name))}
    assert moved and all(name.endswith(f".weight.{field}") for name in moved)
    allowed = set()
    for name in moved:
        info = before.info[name]
        for start in range(info.start, info.start + info.span, info.pitch):
            allowed |= set(range(start, start + info.piece))
    assert {at for at in range(len(old[FILE])) if old[FILE][at] != new[FILE][at]} <= allowed
    assert forq("verify", run, "--base", pipeline).returncode == 0
    assert forq("replay", run, "--base", pipeline, "--out", again).returncode == 0
    assert files(again) == new


def test_what_was_tuned_is_scored_drawn_inspected_and_exported(pipeline, data, tmp_path, forq) -> None:
    run = tmp_path / "run"
    how, lora = (*TASK, "--data", data, *SMALL), ("--move", "lora", "--rank", "2")
    done = forq("tune", pipeline, *how, *lora, "--steps", "2", "--eval-every", "2", "--out", run)
    assert done.returncode == 0, done.stderr
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    told = json.loads(forq("inspect", pipeline, "--json").stdout)
    assert told["format"] == "gguf"
    before = json.loads(forq("eval", pipeline, *how, "--json").stdout)
    assert before["loss"] == pytest.approx(json.loads((run / "result.json").read_text())["test"]["before"]["loss"])
    drawn = ("--prompt", "a one", "--resolution", "28", "--steps", "2", "--text-tokens", tiny_pipeline.TEXT_TOKENS)
    done = forq("sample", pipeline, *drawn, "--out", tmp_path / "one.png")
    assert done.returncode == 0 and (tmp_path / "one.png").is_file(), done.stderr
    out = tmp_path / "floats"
    assert forq("export", pipeline, "--to", "float32", "--out", out).returncode == 0
    assert sorted(path.name for path in (out / "transformer").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    after = json.loads(forq("eval", out, *how, "--json").stdout)
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
