"""A run that makes things worse says so, and one that moves next to nothing is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from forq.cli._tuning import _nothing_better
from forq.demo import CHECKPOINT
from tests.cli.conftest import Done

OPTIONS = ("--set", "task.max_length=32", "--set", "task.validation_rows=4", "--set", "task.test_rows=4")


@pytest.fixture
def tune(base, text, tmp_path, forq):
    def call(*words: object, model: Path = base, data: Path = text) -> tuple[Done, dict]:
        done = forq("tune", model, "--task", "text", "--data", data, "--out", tmp_path / "run", *OPTIONS, *words)
        path = tmp_path / "run" / "result.json"
        return done, json.loads(path.read_text()) if path.exists() else {}

    return call


def test_steps_that_are_too_long_are_noticed_said_and_no_success(tune, tmp_path):
    # The demo's model has learned prose, so that there is something to lose.
    prose = Path(__file__).parents[2] / "LICENSE"
    words = ("--steps", 4, "--eval-every", 1, "--set", "rule.lr=6", "--set", "rule.clip=off")
    done, result = tune(*words, model=CHECKPOINT, data=prose)
    assert done.returncode == 0, done.stderr
    assert "after step 1 validation is clearly worse than before the first step" in done.stderr
    assert "3 scores in a row are clearly worse" in done.stderr and "--set rule.lr=1.5" in done.stderr
    assert "no step had a better validation loss (4 rows); what is saved is the original" in done.stdout
    assert result["main"] == "loss"
    assert "at the last step validation was clearly worse" in done.stdout and "last step" in done.stdout
    assert result["improved"] is False and result["worse"] is True and result["step"] == 0
    sides = result["validation"]
    assert sides["before"] == sides["after"] and sides["last"]["loss"] > 1.02 * sides["before"]["loss"]
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["worse"] for row in rows if "score" in row] == [False, True, True, True, True]


def test_the_metric_that_decides_is_named_beside_what_the_loss_did():
    result: Any = {"main": "accuracy", "improved": False, "stopped": None}
    before, last = {"rows": 12, "loss": 1.7912, "accuracy": 0.5}, {"rows": 12, "loss": 1.3234, "accuracy": 0.4}
    result["validation"] = {"before": before, "after": before, "last": last}
    assert _nothing_better(result) == (
        "no step had a better validation accuracy (12 rows; the loss fell from 1.791 to 1.323); what is saved is the "
        "original"
    )
    old = {**result, "validation": {**result["validation"], "last": before}}
    del old["main"]
    assert _nothing_better(old) == "no step had a better validation score (12 rows); what is saved is the original"


def test_a_run_says_what_moves(tune):
    done, result = tune("--steps", 1)
    assert "moves: " in done.stderr and " scales (" in done.stderr and "% of" in done.stderr
    assert result["improved"] is (result["step"] > 0)


def test_a_recipe_for_floats_on_a_quantized_network_is_refused_unless_it_is_meant(tune, tmp_path, monkeypatch):
    from forq.inspection import coverage

    monkeypatch.setattr(coverage, "MOST", 0.05)  # most of a tiny network is its embedding
    refused, _ = tune("--recipe", "mezo", "--steps", 1)
    assert refused.returncode == 1 and "--recipe qzo" in refused.stderr and "weights quantized" in refused.stderr
    assert not (tmp_path / "run").exists()
    meant, _ = tune("--recipe", "mezo", "--move", "all-float", "--steps", 1)
    assert meant.returncode == 0 and " norms" in meant.stderr, meant.stderr
