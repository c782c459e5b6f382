"""A run on classes that was begun before batches were balanced goes on as it began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import forq as library
from forq.plugins import registry
from forq.recipes.probe import USUAL
from forq.runs import config as configs
from forq.runs import journal
from forq.runs.config import RunConfig, TaskConfig, complete
from forq.runs.open_task import open_task
from forq.runs.run import Run

OPTIONS = {"train_rows": 40, "validation_rows": 10, "test_rows": 10, "batch_rows": 4}
SETS = [f"task.{name}={value}" for name, value in OPTIONS.items()]
STEPS = 4


class Unaware:
    """A task as an older forq described it, whose rows shared their directions."""

    read_apart = False

    def __init__(self, task):
        self.task = task

    def __getattr__(self, name):
        return getattr(self.task, name)

    def describe(self):
        return {name: value for name, value in self.task.describe().items() if name != "balanced"}


@pytest.fixture
def films(tmp_path) -> Path:
    (tmp_path / "sst2").mkdir()
    return registry.get("tasks", "sst2").example(tmp_path / "sst2")


def settings(base, films) -> RunConfig:
    task = TaskConfig(name="sst2", data=str(films))
    return complete("qzo", SETS, steps=STEPS, eval_every=2, checkpoint=str(base), task=task, device="cpu")


@pytest.fixture
def older(base, films, tmp_path) -> Path:
    """A run of an older forq, stopped in the middle."""
    config, model = settings(base, films), library.load(base, "cpu")
    alike = config.task.model_copy(update={"options": {**config.task.options, "balanced": False}})
    run = Run.begin(tmp_path / "older", config, model, Unaware(open_task(alike, model, 0)))
    events = run.events()
    while getattr(next(events), "kind", "") != "train":
        pass
    events.close()
    assert "balanced" not in configs.read(run.folder / "config.toml").task.options
    assert "balanced" not in journal.read(run.journal).header["task"]
    return run.folder


@pytest.fixture
def whole(base, films, tmp_path) -> tuple[journal.Line, ...]:
    """The lines of the run that is never stopped."""
    options = {"balanced": False, **OPTIONS}
    how = {
        "recipe": "qzo-shared",
        "steps": STEPS,
        "eval_every": 2,
        "settings": {"task": options, "rule.damping": "confirmed", "estimator.noise": list(USUAL)},
    }
    run = library.tune(base, "sst2", films, out=tmp_path / "whole", **how)
    assert journal.read(run.journal).header["task"]["balanced"] is False
    return journal.read(run.journal).lines


@pytest.mark.parametrize("words", [(), ("--set", "task.balanced=false")])
def test_the_command_line_goes_on_with_it(base, older, whole, forq, words):
    done = forq("tune", base, "--out", older, "--resume", *words)
    assert done.returncode == 0 and "each class" not in done.stderr, done.stderr
    assert journal.read(older / "journal.jsonl").lines == whole
    assert forq("tune", base, "--out", older, "--resume", *words).returncode == 0, "nor once it is finished"


def test_python_goes_on_with_it(base, films, older, whole):
    options = {"steps": STEPS, "eval_every": 2, "settings": {"task": OPTIONS}, "resume": True}
    run = library.tune(library.load(base, "cpu"), "sst2", films, out=older, **options)
    assert journal.read(run.journal).lines == whole


def test_balanced_batches_are_refused_for_it(base, films, older, forq):
    done = forq("tune", base, "--out", older, "--resume", "--set", "task.balanced=true")
    assert done.returncode == 1 and "--set task.balanced: the run has False, found True" in done.stderr, done.stderr
    config, model = settings(base, films), library.load(base, "cpu")
    with pytest.raises(library.JournalError, match=r"task digest .* balanced=False \(--set task\.balanced=false\)"):
        Run.resume(older, config, model, open_task(config.task, model, 0))


def test_a_run_of_today_is_balanced_and_resumes(base, films, tmp_path, forq):
    sets = [word for text in SETS for word in ("--set", text)]
    words = ("tune", base, "--task", "sst2", "--data", films, "--out", tmp_path / "run", "--resume", *sets)
    done = forq(*words, "--steps", STEPS, "--json")
    assert done.returncode == 0 and "batches with as many rows of each class" in done.stderr, done.stderr
    assert journal.read(tmp_path / "run/journal.jsonl").header["task"]["balanced"] is True
    again = forq(*words, "--steps", STEPS, "--json")
    assert again.returncode == 0 and json.loads(again.stdout) == json.loads(done.stdout)
    assert "--set task.balanced: the run has True, found False" in forq(*words, "--set", "task.balanced=false").stderr
    assert forq(*words, "--set", "task.balanced=true").returncode == 0, "a default may be repeated"
    shown = forq("inspect", base, "--task", "sst2", "--data", films, *sets, "--rows", 1)
    assert "batches with as many rows of each class" in shown.stderr
    assert "each class" not in forq("eval", base, "--task", "sst2", "--data", films, *sets).stderr
