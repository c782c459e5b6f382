"""A float checkpoint is quantized into the run's folder, and tuned from there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import forq as library
from forq.checkpoints import Checkpoint
from forq.errors import ConfigError
from forq.models.convert.onload import quantized
from forq.tasks import text
from tests import tiny_lm

OPTIONS = {"max_length": 16, "batch_rows": 2, "validation_rows": 2, "test_rows": 2}
SMALL = ["--task", "text", "--steps", "2", "--eval-every", "2"]
SMALL += [word for name, value in OPTIONS.items() for word in ("--set", f"task.{name}={value}")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float")
    tiny_lm.model("llama", vocab_size=300).save_pretrained(folder)
    tiny_lm.tokenizer(vocabulary=300).save_pretrained(folder)
    return folder


def test_the_run_holds_its_base_and_replays_from_it(source: Path, forq, tmp_path: Path) -> None:
    data, out = text.example(tmp_path), tmp_path / "run"
    command = ["tune", source, "--data", data, "--out", out, "--quantize-on-load", "gptq8", *SMALL]
    done = forq(*command, "--json")
    assert done.returncode == 0, done.stderr
    base = Checkpoint.open(out / "base").config["quantization_config"]
    assert (base["bits"], base["group_size"]) == (8, 16)  # of 32 and 48 inputs
    assert forq("replay", out, "--base", out / "base", "--out", tmp_path / "again").returncode == 0
    saved = Path(json.loads(done.stdout)["checkpoint"]) / "model.safetensors"
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == saved.read_bytes()
    second = forq(*command)
    assert second.returncode == 1 and "a run is there already" in second.stderr


def test_a_base_that_a_killed_run_left_is_taken_and_one_of_other_bits_is_not(source: Path, tmp_path: Path) -> None:
    data, settings = text.example(tmp_path), {"task": OPTIONS}
    run = library.tune(source, "text", data, steps=1, out=tmp_path / "a", quantize_on_load="gptq4", settings=settings)
    assert run.best is not None
    shutil.copytree(tmp_path / "a" / "base", tmp_path / "b" / "base")
    shutil.copy(tmp_path / "a" / "base.json", tmp_path / "b" / "base.json")
    with pytest.raises(ConfigError, match="base made as gptq8, found gptq4"):
        library.tune(source, "text", data, steps=1, out=tmp_path / "b", quantize_on_load="gptq8", settings=settings)
    library.tune(source, "text", data, steps=1, out=tmp_path / "b", quantize_on_load="gptq4", settings=settings)


@pytest.mark.parametrize(("how", "says"), [("gptq5", "expected one of gptq2"), ("gptq4", "quantized already")])
def test_what_cannot_be_is_refused(base: Path, forq, tmp_path: Path, how: str, says: str) -> None:
    data = text.example(tmp_path)
    done = forq("tune", base, "--data", data, "--out", tmp_path / "run", "--quantize-on-load", how, *SMALL)
    assert done.returncode == 1 and says in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_base_of_another_checkpoint_is_refused(source: Path, forq, tmp_path: Path) -> None:
    other, data = tmp_path / "other", text.example(tmp_path)
    shutil.copytree(source, other)
    weights = Checkpoint.open(source)
    name = next(name for name in weights.info if name.endswith("q_proj.weight"))
    weights.save_patched(other, {name: weights.read(name) * 2}, overwrite=True)

    def tune(checkpoint: Path, out: str, *words: object) -> str:
        command = ["tune", checkpoint, "--data", data, "--out", tmp_path / out, "--quantize-on-load", "gptq4"]
        done = forq(*command, *SMALL, *words)
        return "" if done.returncode == 0 else " ".join(done.stderr.split())

    quantized(source, "gptq4", tmp_path / "run" / "base")
    assert "another checkpoint, which was called" in tune(other, "run") and "remove" in tune(other, "run")
    assert tune(source, "run") == ""
    assert "another checkpoint" in tune(other, "run", "--resume") and tune(source, "run", "--resume") == ""
    (tmp_path / "run" / "base.json").unlink()  # as older versions left it: the journal names the base
    assert tune(source, "run", "--resume") == ""
    shutil.copytree(tmp_path / "run" / "base", tmp_path / "old" / "base")
    assert "expected base.json beside it" in tune(source, "old")
    config = json.loads((other / "config.json").read_text())
    shutil.copy(source / "model.safetensors", other / "model.safetensors")
    assert tune(other, "third") == ""
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 5e4}))
    assert "another checkpoint" in tune(other, "third", "--resume")


def test_nothing_is_quantized_for_settings_that_cannot_be(source: Path, forq, tmp_path: Path) -> None:
    for wrong in (["--data", tmp_path / "typo.txt"], ["--data", text.example(tmp_path), "--set", "rule.lrr=1"]):
        command = ["tune", source, *wrong, "--out", tmp_path / "run", "--quantize-on-load", "gptq4", *SMALL]
        assert forq(*command).returncode == 1 and not (tmp_path / "run").exists()
