"""A pipeline of Stable Diffusion 3's classes through the command line: tune, replay, evaluate, draw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from forq.checkpoints import Checkpoint
from forq.models.diffusion.denoiser import library
from forq.models.diffusion.pipeline import given
from tests import tiny_pipeline

TASK = ("--task", "text-to-image", "--resolution", "28", "--set", f"task.text_tokens={tiny_pipeline.TEXT_TOKENS}")
SMALL = ("--set", "task.batch_rows=4", "--set", "task.sample_steps=2")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return tiny_pipeline.save(tmp_path_factory.mktemp("pipeline") / "sd3")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_pipeline.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> tuple[str, ...]:
    """A network whose features are four quarters of a picture."""
    file = tmp_path_factory.mktemp("network") / "mine.py"
    file.write_text("def quarters(x): return x.reshape(-1, 3, 2, 14, 2, 14).mean((1, 3, 5)).reshape(-1, 4)")
    return ("--set", f"task.features={file}:quarters", "--set", "task.feature_samples=4")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def same_files(one: Path, other: Path, below: str = "") -> set[str]:
    """Files of one folder whose bytes the other lacks."""
    names = {str(path.relative_to(one)) for path in (one / below).rglob("*") if path.is_file()}
    return {name for name in names if (one / name).read_bytes() != (other / name).read_bytes()}


def test_a_quantized_run_gives_the_folder_back_with_only_its_scales_changed(
    pipeline, data, judged, tmp_path, forq
) -> None:
    run = tmp_path / "run"
    how = (*TASK, "--data", data, *SMALL)
    done = forq("tune", pipeline, *how, "--quantize-on-load", "nf4", "--steps", "4", "--eval-every", "2", "--out", run)
    assert done.returncode == 0, done.stderr
    base, saved = run / "base", run / "checkpoint"
    assert same_files(base, saved) <= {"transformer/diffusion_pytorch_model.safetensors"}
    assert not same_files(pipeline, base, "vae") and not same_files(pipeline, base, "text_encoder")
    old, new = Checkpoint.open(base), Checkpoint.open(saved)
    moved = {name for name in old.info if not torch.equal(old.read(name), new.read(name))}
    assert all(name.endswith(".absmax") for name in moved)
    assert forq("verify", run, "--base", base).returncode == 0
    again = tmp_path / "again"
    assert forq("replay", run, "--base", base, "--out", again).returncode == 0
    assert not same_files(saved, again)
    told, before, after = (json.loads(forq("eval", one, *how, *judged, "--json").stdout) for one in (run, base, saved))
    assert told["loss"] == after["loss"]
    counts = told["data"]["splits"]["test"]
    assert counts["used"] == told["rows"] < counts["read"], "drawn from all pictures, which are read for it"
    for name in ("feature distance", "feature distance error"):
        assert told[name] == after[name] != before[name] == told[name.replace("distance", "distance before")]
    assert told["loss"] == pytest.approx(json.loads((run / "result.json").read_text())["test"]["after"]["loss"])
    assert {f"loss q{n}" for n in (1, 2, 3, 4)} <= set(told)
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        "step-000000.png",
        "step-000002.png",
        "step-000004.png",
    ]
    drawn = ("--prompt", "a one", "--resolution", "28", "--steps", "2", "--text-tokens", tiny_pipeline.TEXT_TOKENS)
    for name in ("one.png", "two.png"):
        assert forq("sample", run, *drawn, "--out", tmp_path / name).returncode == 0
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size == (56, 28)  # before | after
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_float_run_of_norms_and_biases_is_loaded_by_diffusers(pipeline, data, tmp_path, forq) -> None:
    run = tmp_path / "run"
    how = ("--move", "norms,biases", "--set", "rule.lr=1e-2", "--set", "estimator.eps=1e-2")
    done = forq(
        "tune", pipeline, *TASK, "--data", data, *SMALL, *how, "--steps", "4", "--eval-every", "4", "--out", run
    )
    assert done.returncode == 0, done.stderr
    folder = run / "checkpoint"
    pipe = library().StableDiffusion3Pipeline.from_pretrained(folder, **given(folder, torch.device("cpu")))
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a one", height=28, width=28, num_inference_steps=2, max_sequence_length=1).images[0]
    assert picture.size == (28, 28)


def test_adapters_on_a_grid_move_beside_a_pipeline(pipeline, data, tmp_path, forq) -> None:
    run = tmp_path / "run"
    how = ("--recipe", "zoqo", "--move", "lora", "--rank", "2")
    done = forq(
        "tune", pipeline, *TASK, "--data", data, *SMALL, *how, "--steps", "3", "--eval-every", "3", "--out", run
    )
    assert done.returncode == 0, done.stderr
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


def test_what_cannot_be_is_refused_in_words(pipeline, data, tmp_path, forq) -> None:
    def refused(*words: object) -> str:
        done = forq(*words)
        assert done.returncode != 0 and "Traceback" not in done.stderr
        return done.stderr

    out = ("--out", tmp_path / "run", "--steps", "2")
    assert "--resolution" in refused("tune", pipeline, "--task", "text-to-image", "--data", data, *out)
    assert "a language model" in refused("tune", pipeline, "--task", "text", "--data", data, *out)
    assert "pictures" in refused("tune", pipeline, *TASK, "--data", tmp_path, *out)
    assert ".png" in refused("sample", pipeline, "--prompt", "a one", "--out", tmp_path / "x.jpg")
    assert not (tmp_path / "run").exists()


def test_how_far_drawn_pictures_are_is_said_where_a_network_is_named(pipeline, data, judged, forq) -> None:
    how = ("eval", pipeline, *TASK, "--data", data, "--set", "task.sample_steps=2", "--split", "validation")
    told = json.loads(forq(*how, *judged, "--json").stdout)
    assert (told["rows"], told["drawn"], told["held_out"]) == (2, 4, 2)
    assert told["feature distance error"] > 0 and "feature distance before" not in told
    said = f"feature distance {told['feature distance']:.4g} ± {told['feature distance error']:.2g}; 4 pictures drawn"
    assert said in forq(*how, *judged).stdout
    assert "feature" not in forq(*how).stdout
    done = forq(*how, "--set", "task.features=gone.onnx")
    assert done.returncode == 1 and "task.features: there is no file gone.onnx" in done.stderr


def test_a_hub_id_is_scored_and_tuned_as_its_folder_is(pipeline, data, tmp_path, monkeypatch, forq) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    kept = tmp_path / "hub" / "models--some-one--drawn"
    snapshot = kept / "snapshots" / ("0" * 40)
    for name in ("blobs", "refs"):
        (kept / name).mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    for n, file in enumerate(path for path in pipeline.rglob("*") if path.is_file()):
        shutil.copyfile(file, kept / "blobs" / str(n))
        (link := snapshot / file.relative_to(pipeline)).parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(kept / "blobs" / str(n))
    how = (*TASK, "--data", data, *SMALL)
    named, local = (json.loads(forq("eval", one, *how, "--json").stdout) for one in ("some-one/drawn", pipeline))
    assert named["loss"] == local["loss"]
    run = ("--move", "norms", "--steps", "1", "--eval-every", "1", "--out", tmp_path / "run")
    assert forq("tune", "some-one/drawn", *how, *run).returncode == 0
    assert same_files(pipeline, tmp_path / "run" / "checkpoint") <= {"transformer/diffusion_pytorch_model.safetensors"}
    assert not any(path.is_symlink() for path in (tmp_path / "run" / "checkpoint").rglob("*"))


def test_inspect_counts_the_denoiser(pipeline, forq) -> None:
    told = json.loads(forq("inspect", pipeline, "--json").stdout)
    model = library().SD3Transformer2DModel.from_pretrained(pipeline / "transformer")
    assert told["model_type"] == "SD3Transformer2DModel"
    assert told["parameters"] == sum(parameter.numel() for parameter in model.parameters())
