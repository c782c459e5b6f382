"""What a user may get wrong beside the settings of a method: places, devices, options of a task, tokenizers."""

import errno
import importlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import forq
from forq.errors import ConfigError, DataError, FormatError
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from tests import tiny_lm


def test_a_scored_model_still_generates(base, text):
    """Scoring is in inference mode; a buffer born there could not be written to afterwards."""
    model = forq.load(base, "cpu")
    options = {"max_length": 32, "test_rows": 8}
    task = open_task(TaskConfig(name="text", data=str(text), options=options), model, seed=0)
    task.evaluate(model, "test")
    ids = torch.tensor([[5, 6, 7]])
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape == (1, 7)
    with torch.no_grad():
        after = model(ids).logits
    with torch.no_grad():
        assert torch.equal(after, forq.load(base, "cpu")(ids).logits)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("batch_rows=abc", "task.batch_rows: expected a whole number, found 'abc'"),
        ("max_length=64.5", "task.max_length: expected a whole number, found 64.5"),
        ("test_rows=true", "task.test_rows: expected a whole number, found True"),
    ],
)
def test_an_option_of_another_type_is_named(base, text, forq, option, says):
    done = forq("eval", base, "--task", "text", "--data", text, "--set", f"task.{option}")
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.json", None, "found none of tokenizer.json"),
        ("tokenizer.json", "{}", "no tokenizer that transformers can load"),
        ("tokenizer.json", "[1]", "no tokenizer that transformers can load"),
        ("tokenizer_config.json", '{"tokenizer_class": 5}', "no tokenizer that transformers can load"),
    ],
)
def test_a_tokenizer_that_does_not_load_is_said(base, text, tmp_path, name, content, says):
    folder = Path(shutil.copytree(base, tmp_path / "copy"))
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=says):
        open_task(TaskConfig(name="text", data=str(text)), forq.load(folder, "cpu"), seed=0)


@pytest.mark.parametrize(
    ("device", "says"),
    [("gpu", "expected auto, cpu, cuda or cuda:N, found 'gpu'"), ("cpu:7", "'cpu:7'"), ("meta", "'meta'")],
)
def test_an_unknown_device_is_refused(base, device, says):
    with pytest.raises(ConfigError, match=says):
        forq.load(base, device)


def test_a_gpu_that_is_not_here_is_said(base, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0", torch.device("cuda")):
        with pytest.raises(ConfigError, match="no GPU here; use --device cpu"):
            forq.load(base, device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"cuda:0 … cuda:1.*found 'cuda:2'"):
        forq.load(base, "cuda:2")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("config.json", '"dtype": "float32"', '"dtype": "floaty"'),
        ("config.json", '"dtype": "float32"', '"dtype": ["float32"]'),
        ("generation_config.json", "{", '{"compile_config": 5, "watermarking_config": 7,'),
    ],
)
def test_nonsense_in_a_configuration_is_a_format_error(base, tmp_path, file, old, new):
    folder = Path(shutil.copytree(base, tmp_path / "copy"))
    said = (folder / file).read_text()
    assert old in said
    (folder / file).write_text(said.replace(old, new, 1))
    with pytest.raises(FormatError, match="expected"):
        forq.load(folder, "cpu")


def test_a_place_that_cannot_be_is_one_line(base, tmp_path, forq):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "run", tmp_path / ("n" * 300)):
        for words in (("demo", "--out", place), ("quantize", base, place), ("verify", place)):
            done = forq(*words)
            assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
            assert done.stderr.startswith("forq: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOSPC, errno.ELOOP])
def test_an_error_of_the_system_about_a_file_is_one_line(forq, monkeypatch, number):
    def broken(family):
        raise OSError(number, os.strerror(number), "some/place")

    monkeypatch.setattr("forq.plugins.registry.names", broken)
    done = forq("ls")
    assert done.returncode == 1 and done.stderr.startswith(f"forq: some/place: {os.strerror(number)}")
    assert done.stderr.count("\n") == 1


def test_a_demo_without_its_text_leaves_nothing_in_the_way(tmp_path, forq, monkeypatch):
    from forq.demo import corpus

    def no_source(n_chars):
        raise corpus.CorpusError("is the standard library installed as .py files?")

    assert issubclass(corpus.CorpusError, DataError)
    monkeypatch.setattr(corpus, "cards", no_source)
    done = forq("demo", "--out", tmp_path / "a" / "run")
    assert done.returncode == 1 and "standard library" in done.stderr and not list(tmp_path.iterdir())


def test_a_tilde_is_the_home_folder(base, text, tmp_path, forq, monkeypatch):
    shutil.copytree(base, tmp_path / "base")
    shutil.copy(text, tmp_path / "story.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    limit = ("--set", "task.test_rows=2")
    score = forq("eval", "~/base", "--task", "text", "--data", "~/story.txt", *limit)
    assert score.returncode == 0, score.stderr
    assert forq("inspect", "~/base").returncode == 0
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    taken = forq("quantize", "~/base", "~/taken")
    assert taken.returncode == 1 and f"{tmp_path}/taken exists already" in taken.stderr


def test_what_is_in_the_way_is_said_before_the_work_and_in_words_of_the_command_line(base, tmp_path, forq, monkeypatch):
    def work(*args, **options):
        raise AssertionError("worked before it looked")

    monkeypatch.setattr("forq.runs.replay.replay", work)
    monkeypatch.setattr(importlib.import_module("forq.models.convert.quantize"), "quantize", work)
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file"):
        done = forq("replay", "run", "--base", base, "--out", out)
        assert done.returncode == 1 and "choose another --out" in done.stderr and "overwrite=" not in done.stderr
        done = forq("quantize", base, out)
        assert done.returncode == 1 and "--overwrite" in done.stderr and "overwrite=" not in done.stderr
    inside = forq("replay", "run", "--base", base, "--out", base / "inside")
    assert inside.returncode == 1 and "apart from the original" in inside.stderr


def test_a_run_inside_its_checkpoint_is_refused_before_the_first_step(base, text, tmp_path, forq):
    own = Path(shutil.copytree(base, tmp_path / "own"))
    done = forq("tune", own, "--task", "text", "--data", text, "--set", "task.max_length=32", "--out", own / "run")
    assert done.returncode == 1 and "apart from the original" in done.stderr
    assert not (own / "run").exists()


def test_a_place_is_looked_at_once(base, tmp_path, monkeypatch, forq):
    monkeypatch.setenv("FORQ_DATA", str(tmp_path))
    done = forq("eval", base, "--task", "text", "--data", tmp_path / "gone")
    assert done.returncode == 1 and done.stderr.count("gone") == 1


def test_quantize_takes_one_folder_to_write_as_every_command_does(tmp_path, forq):
    source = tmp_path / "float"
    tiny_lm.model("llama", vocab_size=300).save_pretrained(source)
    tiny_lm.tokenizer(vocabulary=300).save_pretrained(source)
    written = [("--out", tmp_path / "named"), (tmp_path / "placed",)]
    for out in written:
        done = forq("quantize", source, *out, "--group-size", "16", "--json")
        assert json.loads(done.stdout)["path"] == str(out[-1]), done.stderr
    assert (tmp_path / "named" / "config.json").is_file() and (tmp_path / "placed" / "config.json").is_file()
    for words in ((), (*written[1], *written[0])):
        wrong = forq("quantize", source, *words)
        assert (wrong.returncode, "expected" in wrong.stderr, "--out" in wrong.stderr) == (2, True, True)
