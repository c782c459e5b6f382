"""``--set task.prior=true`` for tasks of known data sets: what the empty prompt is, and what a run keeps of it."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

import forq as library
from forq.errors import ConfigError
from forq.runs.config import TaskConfig
from forq.runs.config import read as read_config
from forq.runs.open_task import open_task
from tests import tiny_encoders

TEXTS = {
    "sst2": {"sentence": "X"},
    "rte": {"premise": "X", "hypothesis": "X"},
    "cb": {"premise": "X", "hypothesis": "X"},
    "boolq": {"passage": "X", "question": "X"},
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_empty_prompt_is_the_prompt_of_a_row_without_texts(name):
    preset = import_module(f"forq.tasks.{name}").preset
    prompt = preset.ask(TEXTS[name]).prompt
    assert prompt.replace("X", "").lstrip() == preset.empty
    assert preset.empty.endswith(preset.classes.keep.lstrip())


def test_a_run_keeps_the_prior_and_is_scored_with_it(base, tmp_path, forq):
    (tmp_path / "data").mkdir()
    data = import_module("forq.tasks.sst2").example(tmp_path / "data")
    rows = ("task.train_rows=40", "task.validation_rows=8", "task.test_rows=20", "task.batch_rows=4")
    words = ("--task", "sst2", "--data", data, *(word for row in rows for word in ("--set", row)), "--steps", 1)
    losses = {}
    for prior in ("false", "true"):
        out = tmp_path / prior
        done = forq("tune", base, *words, "--set", f"task.prior={prior}", "--out", out, "--json")
        assert done.returncode == 0, done.stderr
        losses[prior] = json.loads(done.stdout)["test"]
        assert json.loads(forq("eval", out, "--json").stdout)["loss"] == losses[prior]["after"]["loss"]
    assert losses["true"]["before"] != losses["false"]["before"]
    kept = read_config(tmp_path / "true" / "config.toml").task.options["prior"]
    assert len(kept.split(",")) == 2 and read_config(tmp_path / "false" / "config.toml").task.options["prior"] is False
    told = forq("predict", tmp_path / "true", "--data", data / "dev.tsv", "--json")
    assert told.returncode == 0, told.stderr


def test_it_is_off_unless_asked_for(base, tmp_path):
    """The papers leave the prior in, and tables are compared with theirs."""
    model = library.load(base, device="cpu")
    import_module("forq.tasks.sst2").example(tmp_path)
    options = {"train_rows": 40, "validation_rows": 8, "test_rows": 8, "batch_rows": 4}
    plain, off = (
        open_task(TaskConfig(name="sst2", data=str(tmp_path), options={**options, **more}), model, 0)
        for more in ({}, {"prior": False})
    )
    assert plain.digest == off.digest and plain.empty is None and plain.prior is None


@pytest.mark.parametrize("prior", [True, "-1,-1"])
def test_an_encoder_has_no_words_to_take_it_from(prior, tmp_path):
    tiny_encoders.folder(tmp_path / "float")
    model = library.load(tmp_path / "float", device="cpu")
    import_module("forq.tasks.sst2").example(tmp_path)
    with pytest.raises(ConfigError, match=r"task\.prior: expected a decoder"):
        open_task(TaskConfig(name="sst2", data=str(tmp_path), options={"prior": prior}), model, 0)


def test_a_run_goes_on_with_the_line_that_began_it(base, tmp_path, forq):
    (tmp_path / "data").mkdir()
    data = import_module("forq.tasks.sst2").example(tmp_path / "data")
    rows = ("task.train_rows=40", "task.validation_rows=8", "task.test_rows=8", "task.batch_rows=4", "task.prior=true")
    words = ("--task", "sst2", "--data", data, *(word for row in rows for word in ("--set", row)), "--steps", 2)
    first = forq("tune", base, *words, "--out", tmp_path / "run", "--json")
    assert first.returncode == 0, first.stderr
    journal = (tmp_path / "run" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / "journal.jsonl").write_bytes(b"".join(journal[:-1]))
    again = forq("tune", base, *words, "--out", tmp_path / "run", "--resume", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["test"] == json.loads(first.stdout)["test"]
    other = forq("tune", base, *words, "--set", "task.prior=false", "--out", tmp_path / "run", "--resume")
    assert other.returncode != 0 and "task.prior" in other.stderr
