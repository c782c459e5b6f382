"""What a run leaves for people, and `forq report` on it, as a user does it."""

import json

import pytest

from forq.checkpoints import Checkpoint
from forq.runs import journal
from tests.unit.report.test_report import scalars

OPTIONS = ("--steps", 6, "--eval-every", 3, "--recipe", "mezo", "--move", "scales,norms")
OPTIONS = (*OPTIONS, "--set", "task.max_length=32", "--set", "task.validation_rows=8", "--set", "task.test_rows=8")


@pytest.fixture(scope="module")
def run(base, text, tmp_path_factory):
    from typer.testing import CliRunner

    from forq.cli import app

    out = tmp_path_factory.mktemp("reported") / "run"
    words = ["tune", base, "--task", "text", "--data", text, "--out", out, "--tensorboard", *OPTIONS]
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out


def test_a_run_records_changes_and_samples(run, base):
    rows = json.loads((run / "moved.json").read_text())
    assert {row["group"] for row in rows} == {"scales", "norms"}
    before, after = Checkpoint.open(base), Checkpoint.open(run / "checkpoint")
    for row in rows:
        old, new = before.read(row["name"]).double(), after.read(row["name"]).double()
        assert row["changed"] == int((old != new).sum()) and row["flipped"] == 0
        assert row["moved"] == pytest.approx(float((new - old).norm()))
        assert row["norm"] == pytest.approx(float(old.norm()))
    assert set(json.loads((run / "samples.json").read_text())) == {"before", "after"}


def test_report_writes_one_page(run, tmp_path, forq):
    done = forq("report", run)
    assert done.returncode == 0 and str(run / "report.html") in done.stdout
    assert "What moved where" in (run / "report.html").read_text()
    done = forq("report", run, "--out", tmp_path / "page.html", "--tensorboard", tmp_path / "board", "--json")
    said = json.loads(done.stdout)
    assert said["report"] == str(tmp_path / "page.html") and said["runs"][0]["finished"]
    assert scalars(tmp_path / "board" / "run") == scalars(run / "tensorboard")
    refused = forq("report", tmp_path)
    assert refused.returncode == 1 and "expected a run's folder" in refused.stderr and "Traceback" not in refused.stderr


def test_a_resumed_run_has_every_step_once_on_the_board(run, base, forq):
    whole = scalars(run / "tensorboard")
    path = run / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    assert forq("report", run, "--out", run / "half.html").returncode == 0
    assert "not finished" in (run / "half.html").read_text()
    done = forq("tune", base, "--out", run, "--resume", "--tensorboard")
    assert done.returncode == 0, done.stderr
    assert scalars(run / "tensorboard") == whole
    assert journal.read(path).lines[-1].kind == "saved"


def test_tensorboard_is_asked_for_before_anything_is_made(base, text, tmp_path, forq, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    words = ("tune", base, "--task", "text", "--data", text, "--out", tmp_path / "run", "--tensorboard", *OPTIONS)
    refused = forq(*words)
    assert refused.returncode == 1 and "pip install 'forq[tensorboard]'" in refused.stderr
    assert not (tmp_path / "run").exists()
