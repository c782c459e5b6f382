"""One command line for a supervisor: repeated, it begins a run, goes on with it, or says that it is finished."""

import gc
import json
import shutil
import weakref
from importlib import import_module

import pytest

import forq
from forq.cli import _tuning
from forq.errors import ConfigError
from forq.runs import journal, metrics, outcome
from forq.runs import run as runs

SETTINGS = {
    "rule": {"newton": 0.4},
    "task": {"max_length": 32, "validation_rows": 4, "test_rows": 4, "batch_rows": 2},
}
OPTIONS = ("--steps", 4, "--eval-every", 2, "--seed", 3, "--set", "task.max_length=32", "--set", "rule.newton=0.4")
OPTIONS = (*OPTIONS, "--set", "task.validation_rows=4", "--set", "task.test_rows=4", "--set", "task.batch_rows=2")


class Killed(BaseException):
    """What nobody catches, in place of SIGKILL."""


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def words(base, text, out):
    return ("tune", base, "--task", "text", "--data", text, "--out", out, *OPTIONS, "--resume", "--json")


@pytest.fixture(scope="module")
def whole(base, text, tmp_path_factory):
    """The run that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return forq.tune(forq.load(base), "text", text, steps=4, eval_every=2, seed=3, out=out, settings=SETTINGS)


# Where a process may die, and how often it gets there before it does.
DEATHS = {
    "before its journal": (runs.journal.Writer, "create", 0),
    "within its calibration": (runs.journal.Writer, "write", 1),
    "before the row of a score": (metrics.Metrics, "score", 1),
    "before it saves": (runs, "save", 0),
    "after it saved": (runs, "changes", 0),
    "before its result": (outcome, "conclude", 0),
}


@pytest.mark.parametrize("death", DEATHS)
def test_the_same_command_line_goes_on_wherever_it_died(whole, base, text, tmp_path, forq, monkeypatch, death):
    place, name, spared = DEATHS[death]
    whole_one, calls = getattr(place, name), []

    def dies(*given, **named):
        calls.append(name)
        if len(calls) > spared:
            raise Killed
        return whole_one(*given, **named)

    line = words(base, text, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(place, name, dies)
        with pytest.raises(Killed):
            forq(*line)
    done = forq(*line)
    assert done.returncode == 0, done.stderr
    assert journal.read(tmp_path / "run/journal.jsonl").lines == journal.read(whole.journal).lines
    assert contents(tmp_path / "run/checkpoint") == contents(whole.checkpoint)
    assert json.loads(done.stdout) == json.loads((tmp_path / "run/result.json").read_text())


def test_it_begins_says_so_and_once_finished_only_says_that(base, text, tmp_path, forq, monkeypatch):
    line = words(base, text, tmp_path / "run")
    first = forq(*line)
    assert first.returncode == 0 and "it begins now" in first.stderr
    monkeypatch.setattr(_tuning, "tune", None)  # nothing is loaded or trained again
    again = forq(*line)
    assert again.returncode == 0 and "finished" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    table = forq(*line[:-1])
    assert table.returncode == 0 and "validation, loss" in table.stdout and "last step" in table.stdout
    (tmp_path / "run/result.json").write_text('{"torn')
    with pytest.raises(TypeError):
        forq(*line)  # a torn result is made again, which this test forbids


@pytest.fixture
def stopped(whole, tmp_path):
    """The run as a kill in its second training step leaves it."""
    folder = tmp_path / "stopped"
    shutil.copytree(whole.folder, folder)
    rows = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    trains = [number for number, row in enumerate(rows) if b'"k":"train"' in row]
    (folder / "journal.jsonl").write_bytes(b"".join(rows[: trains[1]]) + rows[trains[1]][:40])
    shutil.rmtree(folder / "checkpoint")
    return folder


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (("--steps", 500), "--steps: the run has 4, found 500"),
        (("--seed", 4, "--eval-every", 3), "--seed: the run has 3, found 4; --eval-every: the run has 2, found 3"),
        (("--recipe", "qzo-paper"), "--recipe: the run has qzo, found qzo-paper"),
        (("--move", "scales,norms"), "--move: the run has scales, found scales,norms"),
        (("--rank", 4), "--rank: the run has 8, found 4"),
        (("--task", "sst2"), "--task: the run has text, found sst2"),
        (("--reward", "accuracy"), "--reward: the run has none, found accuracy"),
        (("--activations", "int8"), "--activations: the run has float, found int8"),
        (("--set", "rule.newton=0.3"), "--set rule.newton: the run has 0.4, found 0.3"),
        (("--set", "task.max_length=16"), "--set task.max_length: the run has 32, found 16"),
        (("--set", "scales.eps=0.1"), "--set scales.eps: the run has none, found 0.1"),
        (("--quantize-on-load", "nf4"), "--quantize-on-load: the run"),
        (("--set", "rule.lrr=1"), "did you mean 'rule.lr'"),
    ],
)
def test_another_setting_is_refused_by_name_with_both_values(stopped, base, forq, other, says):
    done = forq("tune", base, "--out", stopped, "--resume", *other)
    assert done.returncode == 1 and says in done.stderr, done.stderr


def test_the_same_settings_in_other_words_are_the_runs(stopped, whole, base, text, tmp_path, forq):
    elsewhere = tmp_path / "the-same.txt"
    shutil.copyfile(text, elsewhere)
    line = ("tune", base, "--out", stopped, "--resume", "--data", elsewhere, "--device", "cpu", "--kernel", "auto")
    done = forq(*line, "--set", "rule.newton=4e-1", "--set", "rule.lr=auto", "--recipe", "qzo", "--steps", 4)
    assert done.returncode == 0, done.stderr
    assert contents(stopped / "checkpoint") == contents(whole.checkpoint)


def test_other_data_and_another_kernel_are_refused(stopped, base, tmp_path, forq):
    other = tmp_path / "other.txt"
    other.write_text("".join(f"row {n} is another {n * 7 % 31} .\n" for n in range(2000)))
    done = forq("tune", base, "--out", stopped, "--resume", "--data", other)
    assert done.returncode == 1 and "task" in done.stderr and "give the data" in done.stderr
    done = forq("tune", base, "--out", stopped, "--resume", "--kernel", "reference")
    assert done.returncode == 1 and '"ort", found "reference"' in done.stderr, done.stderr


def test_a_folder_that_holds_something_else_is_no_run(base, text, tmp_path, forq):
    (tmp_path / "notes.txt").write_text("mine")
    done = forq(*words(base, text, tmp_path))
    assert done.returncode == 1 and "expected a new or empty folder, found other files" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    missing = forq("tune", base, "--out", tmp_path / "new", "--resume")
    assert missing.returncode == 2 and not (tmp_path / "new").exists()


def test_in_python_the_same_call_goes_on(stopped, whole, base, text):

    def call(**others):
        named = {"steps": 4, "eval_every": 2, "seed": 3, "settings": SETTINGS, **others}
        return forq.tune(forq.load(base), "text", text, out=stopped, resume=True, **named)

    with pytest.raises(ConfigError, match=r"seed: the run has 3, found 4"):
        call(seed=4)
    with pytest.raises(ConfigError, match=r"rule\.newton: the run has 0\.4, found 0\.6"):
        call(settings={"task": SETTINGS["task"]})
    assert call().best == whole.best and contents(stopped / "checkpoint") == contents(whole.checkpoint)
    assert call().best == whole.best, "a finished run is gone on with too"
    with pytest.raises(ConfigError, match="out"):
        forq.tune(forq.load(base), "text", text, resume=True)


def test_a_journal_from_before_a_setting_goes_on(stopped, whole, base, forq):
    """Headers of earlier versions do not name settings that came later; those have their defaults."""
    past = journal.read(stopped / "journal.jsonl")
    header = json.loads(json.dumps(past.header))
    header.pop("forq")
    header.pop("#", None)
    assert header["method"]["rule"].pop("feedback") == 0
    (stopped / "journal.jsonl").unlink()
    writer = journal.Writer.create(stopped / "journal.jsonl", header)
    for line in past.lines:
        writer.write(line)
    writer.close()
    assert forq("tune", base, "--out", stopped, "--resume").returncode == 0
    assert contents(stopped / "checkpoint") == contents(whole.checkpoint)


def test_no_two_models_are_held_at_one_time(base, text, tmp_path, forq, monkeypatch):
    """The network that was tuned is let go before the saved file is loaded to be scored."""
    loading = import_module("forq.models.load")
    load, alive = loading.load, []

    def watched(*given, **named):
        gc.collect()
        assert [ref() for ref in alive if ref() is not None] == []
        model = load(*given, **named)
        alive.append(weakref.ref(model))
        return model

    for place in (loading, outcome):
        monkeypatch.setattr(place, "load", watched)
    done = forq(*words(base, text, tmp_path / "run"))
    assert done.returncode == 0 and len(alive) == 3
