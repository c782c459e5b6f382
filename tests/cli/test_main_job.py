"""The main job as a user runs it: tune, see, kill, resume, replay, verify; and what bad input gets."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import forq
from forq.checkpoints import Checkpoint
from forq.runs import journal
from tests.cli.conftest import command, environment

OPTIONS = ("--steps", 24, "--eval-every", 8, "--set", "task.max_length=32", "--set", "task.validation_rows=16")
OPTIONS = (*OPTIONS, "--set", "task.test_rows=16")


def lines(folder):
    path = folder / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def metrics(folder):
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@pytest.fixture(scope="session")
def run(base, text, tmp_path_factory):
    """A finished run, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "run"
    words = command("tune", base, "--task", "text", "--data", text, "--out", out, *OPTIONS, "--json")
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_it_helps_and_the_saved_file_is_what_was_scored(run, base):
    out, said = run
    assert said["validation"]["after"]["loss"] < said["validation"]["before"]["loss"]
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "checkpoint",
        "config.toml",
        "journal.jsonl",
        "metrics.jsonl",
        "moved.json",
        "result.json",
        "samples.json",
        "state",
    ]
    changed = [name for name, data in contents(base).items() if contents(out / "checkpoint")[name] != data]
    assert changed == ["model.safetensors"]
    best = min(row["score"]["loss"] for row in metrics(out) if "score" in row)
    assert best == said["validation"]["after"]["loss"]


def test_replay_rebuilds_the_checkpoint_byte_for_byte(run, base, tmp_path, forq):
    out, said = run
    done = forq("replay", out, "--base", base, "--out", tmp_path / "again")
    assert done.returncode == 0 and f"step {said['step']}" in done.stdout
    assert contents(tmp_path / "again") == contents(out / "checkpoint")
    zero = forq("replay", out / "journal.jsonl", "--base", base, "--out", tmp_path / "zero", "--step", 0)
    assert zero.returncode == 0
    assert contents(tmp_path / "zero") == contents(base)
    refused = forq("replay", out, "--base", base, "--out", tmp_path / "more", "--step", 99)
    assert refused.returncode == 1 and "steps 0 … 24" in refused.stderr


def test_verify_says_yes_to_the_run_and_no_to_what_was_changed(run, base, tmp_path, forq):
    out, _ = run
    done = forq("verify", out, "--base", base, "--json")
    assert json.loads(done.stdout) | {"rebuilt": True, "checkpoint": True, "finished": True} == json.loads(done.stdout)
    edited = tmp_path / "journal.jsonl"
    edited.write_bytes((out / "journal.jsonl").read_bytes().replace(b'"t":9', b'"t":8', 1))
    refused = forq("verify", edited)
    assert refused.returncode == 1 and "line 11" in refused.stderr and "seal" in refused.stderr
    touched = tmp_path / "run"
    shutil.copytree(out, touched)
    path = touched / "checkpoint" / "model.safetensors"
    data = bytearray(path.read_bytes())
    place = Checkpoint.open(path.parent).info["model.layers.0.mlp.up_proj.qweight"].start
    data[place] ^= 1
    path.write_bytes(data)
    assert "was changed after the run" in forq("verify", touched, "--base", base).stderr
    alone = forq("verify", touched)
    assert alone.returncode == 0 and "what did not move is not compared: give --base" in alone.stdout, alone.stderr
    data[Checkpoint.open(path.parent).info["model.layers.0.mlp.up_proj.scales"].start] ^= 1
    path.write_bytes(data)
    alone = forq("verify", touched)
    assert alone.returncode == 1 and "are those that the journal names: NO" in alone.stdout
    assert "found others: it was changed after the run" in alone.stderr
    lone = forq("verify", out / "journal.jsonl")
    assert lone.returncode == 0 and "only the journal was named; name the run's folder" in lone.stdout
    other = forq("verify", out, "--base", out / "checkpoint")
    assert other.returncode == 1 and "another base" in other.stderr


def test_killed_and_resumed_is_the_undisturbed_run(run, base, text, tmp_path, forq):
    out, _ = run
    killed = tmp_path / "run"
    words = ("tune", base, "--task", "text", "--data", text, "--out", killed, *OPTIONS)
    for wanted in (4, 15):
        process = subprocess.Popen(command(*words, "--resume"), env=environment(), stderr=subprocess.DEVNULL)
        while lines(killed) < wanted and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert lines(killed) < lines(out)
    assert forq(*words, "--resume").returncode == 0
    assert journal.read(killed / "journal.jsonl").lines == journal.read(out / "journal.jsonl").lines
    assert contents(killed / "checkpoint") == contents(out / "checkpoint")
    assert [row["step"] for row in metrics(killed) if "step" in row] == list(range(lines(out) - 2))
    assert [row for row in metrics(killed) if "score" in row] == [row for row in metrics(out) if "score" in row]
    again = forq(*words, "--resume")
    assert again.returncode == 0 and lines(killed) == lines(out), "a finished run resumes to itself"


def test_a_kill_between_the_journal_and_the_metrics_loses_no_row(run, base, tmp_path, forq):
    out, _ = run
    killed = tmp_path / "run"
    shutil.copytree(out, killed)
    whole = (killed / "journal.jsonl").read_text().splitlines(keepends=True)
    (killed / "journal.jsonl").write_text("".join(whole[:15]))
    rows = [row for row in metrics(out) if "score" in row or row["step"] < 13]
    (killed / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row.get("trained", 0) < 12))
    shutil.rmtree(killed / "state")
    (killed / "state").mkdir()
    assert forq("tune", base, "--out", killed, "--resume").returncode == 0
    assert [row["step"] for row in metrics(killed) if "step" in row] == list(range(lines(out) - 2))


def test_ctrl_c_leaves_a_run_to_resume(base, text, tmp_path, forq):
    out = tmp_path / "run"
    words = command("tune", base, "--task", "text", "--data", text, "--out", out, *OPTIONS, "--steps", 5000)

    def hears_ctrl_c():
        # A suite in the background of a shell is started deaf to it, and so would its children be.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
    while lines(out) < 5 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in said and "Traceback" not in said
    assert journal.read(out / "journal.jsonl").torn_bytes == 0


@pytest.mark.parametrize("limit", [5_000, 20_000])
def test_a_full_disk_is_said_and_loses_nothing(base, text, tmp_path, forq, limited, limit):
    """A file-size limit stands in for the full disk: snapshot and journal hit the small one, the export the other."""
    out = tmp_path / "run"
    words = ("tune", base, "--task", "text", "--data", text, "--out", out, *OPTIONS)
    done = limited(*words, file_bytes=limit)
    assert done.returncode == 1 and "nothing" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert forq("tune", base, "--out", out, "--resume", "--device", "cpu").returncode == 0


def test_in_python_the_same_job(base, text, tmp_path):
    model = forq.load(base)
    options = {"task": {"max_length": 32, "validation_rows": 16}}
    done = forq.tune(model, "text", text, steps=12, out=tmp_path / "run", settings=options)
    assert done.best.score.loss < done.first.score.loss
    saved = forq.load(done.folder / "checkpoint")
    assert done.task.evaluate(saved, "validation") == done.best.score == done.task.evaluate(model, "validation")


def test_qzo_steps_with_a_closure(base):
    model = forq.load(base)
    ids = AutoTokenizer.from_pretrained(base)("film number 3 says it was 9 .", return_tensors="pt")["input_ids"]

    def closure():
        return model(input_ids=ids, labels=ids).loss.item()

    before = closure()
    optimizer = forq.QZO(forq.space(model), seed=1)
    losses = [optimizer.step(closure) for _ in range(40)]
    assert losses[0] == pytest.approx(before) and closure() < before - 0.1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "rule.lrr=1"), "did you mean 'rule.lr'"),
        (("--set", "rule.lr=-1"), "rule.lr: expected more than 0 or 'auto', found -1"),
        (("--set", "task.max_lenght=9"), "did you mean 'max_length'"),
        (("--set", "rule.lr"), "--set: expected NAME=VALUE"),
        (("--recipe", "mezzo"), "did you mean 'mezo'"),
        (("--recipe", "mezo", "--set", "move=dance"), "dense"),
        (("--set", "rule.lr=1e-30"), "raise rule.lr"),
        (("--steps", "0"), "steps"),
        (("--device", "gpu"), "expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_wrong_setting_is_named(base, text, tmp_path, forq, words, says):
    done = forq("tune", base, "--task", "text", "--data", text, "--out", tmp_path / "run", *OPTIONS, *words)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_bad_places_are_refused(run, base, text, tmp_path, forq):
    out, _ = run
    taken = forq("tune", base, "--task", "text", "--data", text, "--out", out, *OPTIONS)
    assert taken.returncode == 1 and "a run is there already: add --resume to continue it" in taken.stderr
    nothing = forq("tune", base, "--task", "text", "--data", tmp_path / "none.txt", "--out", tmp_path / "r")
    assert nothing.returncode == 1 and "none.txt" in nothing.stderr and not (tmp_path / "r").exists()
    (tmp_path / "empty.txt").touch()
    empty = forq("tune", base, "--task", "text", "--data", tmp_path / "empty.txt", "--out", tmp_path / "r")
    assert empty.returncode == 1 and "empty" in empty.stderr
    other = forq("tune", out / "checkpoint", "--out", out, "--resume")
    assert other.returncode == 1 and "with base" in other.stderr
