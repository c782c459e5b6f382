"""What a stranger reads at the command line: each message says what was expected, what was found, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import forq as library
from forq.cli._options import as_typed
from forq.cli._tuning import _sentences, _why
from forq.cli.eval import evaluate
from forq.cli.replay import replay
from forq.cli.tune import tune
from forq.errors import ConfigError, FormatError
from forq.report.words import counted
from forq.runs.config import TaskConfig
from forq.runs.fixed_options import SourceRun
from forq.tasks.rows.account import Account

SMALL = {"max_length": 32, "batch_rows": 4, "validation_rows": 4, "test_rows": 4}


@pytest.fixture(scope="module")
def run(base, text, tmp_path_factory) -> Path:
    """A finished run of one step."""
    out = tmp_path_factory.mktemp("one") / "run"
    library.tune(base, "text", str(text), steps=1, out=out, settings={"task": SMALL})
    return out


@pytest.fixture
def stopped(run, tmp_path) -> Path:
    """The run as a kill leaves it: the last line of its journal is cut off, and nothing is saved."""
    folder = tmp_path / "stopped"
    folder.mkdir()
    shutil.copy(run / "config.toml", folder)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:85])
    return folder


def test_a_stopped_run_can_be_finished_or_rebuilt(stopped, base, tmp_path, forq):
    refused = forq("eval", stopped)
    assert refused.returncode == 1
    assert f"forq replay {stopped} --base CHECKPOINT --out FOLDER" in refused.stderr
    done = forq("replay", stopped, "--base", base, "--out", tmp_path / "again")
    assert done.returncode == 0 and "the tuned model after step 1, rebuilt from the journal" in done.stdout


def test_a_journal_that_was_cut_off_is_not_called_whole(stopped, run, forq):
    cut, whole = forq("verify", stopped), forq("verify", run)
    assert "journal valid up to step 1 (" in cut.stdout and "whole" not in cut.stdout
    assert "its last line is incomplete (85 bytes); the run is not finished; --resume continues it" in cut.stdout
    assert "journal valid: 1 step, " in whole.stdout and "the run is finished" in whole.stdout


def test_a_folder_that_is_neither_run_nor_checkpoint_is_told_so_first(tmp_path, forq):
    scored, checked = forq("eval", tmp_path), forq("verify", tmp_path)
    assert scored.returncode == 1 and "not a transformers checkpoint, and not the folder of a run" in scored.stderr
    assert checked.returncode == 1 and "expected a run's journal, found none; name the folder" in checked.stderr


def test_a_run_of_an_open_task_asks_for_its_data():
    tuned = SourceRun(TaskConfig(name="completion", data=""), 0, {})
    with pytest.raises(ConfigError, match=r"given an open task \(completion\); name its data with --data"):
        tuned.own_data("completion")
    with pytest.raises(ConfigError, match=r"given an open task \(sums\); score it in Python: .*task\.evaluate"):
        SourceRun(TaskConfig(name="sums", data=""), 0, {}).own_data("sums")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--watch", "plain=notes.txt"), "expected NAME=TASK:DATA, such as plain=text:notes.txt"),
        (("--set", "batch_rows=8"), "no setting is called 'batch_rows' (did you mean 'task.batch_rows'?)"),
        (("--set", "noise=rademacher"), "(did you mean 'estimator.noise' or 'rule.noise'?)"),
        (("--set", "rule.lr=fast"), "rule.lr: expected a number or 'auto', found 'fast'"),
        (("--set", "rule.newton=4"), "rule.newton: expected at most 1, found 4"),
        (("--kernel", "fast"), "--kernel: expected 'auto', 'reference', "),
        (("--steps", 0), "--steps: expected at least 1, found 0"),
        (("--move", "scale"), "--move: expected kinds among scales"),
        (("--move", "adapters"), "all-float (did you mean 'lora'?); found 'adapters'"),
    ],
)
def test_a_wrong_option_is_named_as_it_is_typed(base, text, tmp_path, forq, words, says):
    done = forq("tune", base, "--task", "text", "--data", text, "--out", tmp_path / "run", *words)
    assert done.returncode != 0 and says in " ".join(done.stderr.replace("│", "").split()), done.stderr


def test_python_reads_the_names_of_arguments(base, text, tmp_path):
    with pytest.raises(ConfigError, match=r"^move: expected kinds among scales"):
        library.tune(base, "text", str(text), move="scale", out=tmp_path / "run", steps=1)
    assert as_typed("move: expected kinds", tune) == "--move: expected kinds"
    assert as_typed("quantize_on_load: expected", tune) == "--quantize-on-load: expected"
    assert as_typed("kernel ort: q_proj: why", evaluate) == "--kernel ort: q_proj: why"
    assert as_typed("step 5: the masters are others", replay) == "step 5: the masters are others"
    assert as_typed("step: the run has steps 0 … 2", replay) == "--step: the run has steps 0 … 2"
    assert as_typed("run: a run is there already", tune) == "run: a run is there already"


def test_options_of_scores_are_named_in_full(base, text, forq):
    done = forq("eval", base, "--task", "text", "--data", text, "--set", "batch_rows=8")
    assert done.returncode == 1 and "found 'batch_rows=8' (did you mean 'task.batch_rows=8'?)" in done.stderr


def test_a_finished_run_says_how_to_train_further(run, base, text, tmp_path, forq):
    words = ("tune", base, "--task", "text", "--data", text, "--out", run)
    more = forq(*words, "--resume", "--steps", 9)
    assert more.returncode == 1 and f"begin a new run on its result: forq tune {run}/checkpoint" in more.stderr
    shutil.copytree(run, tmp_path / "stopped", ignore=shutil.ignore_patterns("checkpoint"))
    unfinished = forq(*words[:-1], tmp_path / "stopped", "--resume", "--steps", 9)
    assert f"without finishing it: forq replay {tmp_path / 'stopped'} --base CHECKPOINT" in unfinished.stderr
    again = forq(*words)
    assert again.returncode == 1 and "a run is there already: add --resume to continue it" in again.stderr
    (tmp_path / "file").touch()
    place = forq("tune", base, "--task", "text", "--data", text, "--out", tmp_path / "file" / "run", "--steps", 1)
    assert place.returncode == 1 and "--out: expected a place to write to, found " in place.stderr


@pytest.mark.parametrize("name", ["smolm2", "run/checkpont"])
def test_a_name_that_is_nearly_right_is_suggested(tmp_path, monkeypatch, name):
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FormatError, match="expected a file, a folder, a model of `forq models`, or a hub id"
    ) as refused:
        library.load(name)
    assert f"(did you mean {'smollm2' if name == 'smolm2' else name.replace('pont', 'point')!r}?)" in str(refused.value)
    with pytest.raises(FormatError, match=r"found nothing at \./run/checkpont \(did you mean 'run/checkpoint'\?\)"):
        library.load("./run/checkpont")


def test_an_unknown_target_is_said_before_the_folder(run, base, tmp_path, forq):
    assert "--to: expected one of awq, " in forq("export", run, "--to", "pdf", "--out", run).stderr
    quantized = forq("quantize", base, tmp_path / "q", "--to", "awq").stderr
    assert "--to: expected one of gptq, nf4, fp4, found 'awq'; forq export --to awq writes it" in quantized


def test_the_last_lines_of_a_run():
    assert _why([(0.4, False), (0.8, False)]) == (
        "Held-out rows confirmed 0 of 2 steps; unconfirmed steps are kept short (rule.noise). Use more rows per batch "
        "(--set task.batch_rows=…)."
    )
    confirmed = _why([(0.5, True)])
    assert confirmed.startswith("Held-out rows confirmed 1 of 1 step; steps took 0.5 of the length")
    result = {"rounding": 2.05e-4, "certificate": None, "floor": None}
    assert _sentences(result) == ["Rounding to the file's dtype changed the trained values by 0.021 %."]
    assert _sentences(result | {"rounding": 0.0}) == [], "adapters are saved as they are"
    prior = Account(used={"train": 9}, prior={"number": 0.37})
    assert prior.line == "rows: train 9; label-word prior (subtracted): number 37 %"
    assert (counted(1, "step"), counted(2000, "forward pass", "forward passes")) == ("1 step", "2,000 forward passes")


def test_how_conversations_are_read_is_said_where_some_may_be(base, text, run, forq):
    plain = forq("eval", run)
    assert plain.returncode == 0 and "chat template" not in plain.stderr, plain.stderr
