"""A run that makes things worse says so, and one that moves next to nothing is refused."""

import json
from pathlib import Path

import pytest

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
    nothing = (
        f"nothing better than the original was found in {result['forwards']} forwards; what is saved is the original"
    )
    assert nothing in done.stdout
    assert "at the last step validation was clearly worse" in done.stdout and "last step" in done.stdout
    assert result["improved"] is False and result["worse"] is True and result["step"] == 0
    sides = result["validation"]
    assert sides["before"] == sides["after"] and sides["last"]["loss"] > 1.02 * sides["before"]["loss"]
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["worse"] for row in rows if "score" in row] == [False, True, True, True, True]


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
