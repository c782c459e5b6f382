"""Objectives of one's own: accuracy itself, and a function from a file, over answers and over completions."""

import json
from pathlib import Path

import pytest
import torch

from forq.errors import ConfigError
from forq.models.load import load
from forq.plugins import registry
from forq.runs import journal
from forq.scalars.losses import means
from forq.tasks.kinds.generate import written
from forq.tasks.objectives import rewards

SST2 = ("--set", "task.validation_rows=40", "--set", "task.test_rows=40", "--set", "task.batch_rows=32")
SHORT = ("--steps", 12, "--eval-every", 4)


@pytest.fixture
def films(tmp_path) -> Path:
    (tmp_path / "sst2").mkdir()
    return registry.get("tasks", "sst2").example(tmp_path / "sst2")


@pytest.fixture
def sums(tmp_path) -> Path:
    return registry.get("tasks", "completion").example(tmp_path)


def test_accuracy_itself_is_the_objective(base, films, tmp_path, forq):
    out = tmp_path / "run"
    done = forq("tune", base, "--task", "sst2", "--data", films, "--out", out, *SHORT, *SST2, "--reward", "accuracy")
    assert done.returncode == 0, done.stderr
    header = journal.read(out / "journal.jsonl").header["task"]
    assert header["reward"] == "accuracy" and len(header["reward_code"]) == 64
    losses = [loss for line in journal.read(out / "journal.jsonl").lines for loss in means(line.losses)]
    assert losses and all(-1 <= loss <= 0 and (loss * 32) % 1 == 0 for loss in losses), "not a share of 32 rows"
    scores = [
        row["score"] for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "score" in row
    ]
    assert all(score["metrics"]["reward"] == score["metrics"]["accuracy"] for score in scores)
    assert {score["main"] for score in scores} == {"reward"}
    assert forq("verify", out, "--base", base).returncode == 0


def test_a_function_from_a_file_scores_what_the_model_writes(base, sums, tmp_path, forq):
    (tmp_path / "mine.py").write_text("def digits(prompt, text, row):\n    return sum(c.isdigit() for c in text)\n")
    words = ("--task", "completion", "--data", sums, "--reward", f"{tmp_path / 'mine.py'}:digits", "--json")
    done = forq("eval", base, *words)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["reward"] >= 0 and said["loss"] > 0
    out = tmp_path / "run"
    again = forq("tune", base, *words[:-1], "--out", out, *SHORT, "--set", "task.batch_rows=8")
    assert again.returncode == 0 or "no displacement changes the loss" in again.stderr, again.stderr


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("nonsense", "", "expected accuracy, f1"),
        ("nowhere:f", "", "cannot be imported"),
        ("FILE:f", "def f(:", "cannot be imported: SyntaxError"),
        ("FILE:g", "f = 1", "has no function 'g'"),
        ("FILE:f", "f = 1", "has no function 'f'"),
        ("FILE:f", "def f(p, t, r): raise KeyError('x')", "KeyError: 'x', at the answer"),
        ("FILE:f", "def f(p, t, r): return 'much'", "expected a finite number, found 'much'"),
        ("FILE:f", "def f(p, t, r): return float('nan')", "expected a finite number, found nan"),
    ],
)
def test_a_reward_that_cannot_be_used_is_named(base, films, tmp_path, forq, name, code, says):
    (tmp_path / "mine.py").write_text(code)
    words = ("--reward", name.replace("FILE", str(tmp_path / "mine.py")))
    done = forq("eval", base, "--task", "sst2", "--data", films, *SST2, *words)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_plain_text_has_no_answers(base, text, forq):
    done = forq("eval", base, "--task", "text", "--data", text, "--reward", "f1")
    assert done.returncode == 1 and "a task with answers" in done.stderr


def test_a_reward_is_told_the_fields_of_the_row(base, tmp_path, forq):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "film", "completion": " good", "wants": "5"}\n' * 6)
    (tmp_path / "values.py").write_text("FACTOR = 2\n")
    (tmp_path / "mine.py").write_text(
        "import dataclasses, values\n@dataclasses.dataclass\nclass Thing:\n    size: int\n"
        "def wanted(prompt, text, row):\n"
        "    assert (prompt, row['answer'], row['completion']) == ('film', ' good', ' good')\n"
        "    return values.FACTOR * int(row['wants'])\n"
    )
    words = ("--data", tmp_path / "rows.jsonl", "--reward", f"{tmp_path / 'mine.py'}:wanted", "--json")
    done = forq("eval", base, "--task", "completion", *words)
    assert done.returncode == 0 and json.loads(done.stdout)["reward"] == 10, done.stderr


def test_the_shipped_rewards():
    assert rewards.accuracy("", " Yes", {"answer": "Yes"}) == 1 and rewards.accuracy("", "No", {"answer": "Yes"}) == 0
    assert rewards.f1("", "the red house.", {"answer": "a red House"}) == 1
    assert rewards.f1("", "red red car", {"answer": "the red house"}) == pytest.approx(2 / 5)
    assert rewards.f1("", "red house", {"answer": "car", "answers": ["car", "house"]}) == pytest.approx(2 / 3)
    assert rewards.f1("", "", {"answer": "the"}) == 1, "two answers without a word"
    assert rewards.exact_match("", " The Red house!", {"answer": "red house"}) == 1
    assert rewards.exact_match("", "house red", {"answers": ["red house", "red"]}) == 0
    assert rewards.f1("", "", {"answer": "house"}) == 0
    with pytest.raises(ConfigError):
        rewards.resolve(":f")


def test_decoding_a_batch_is_decoding_row_by_row(base):
    model = load(base, "cpu")
    prompts = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16]]
    with torch.inference_mode():
        together = written(model, prompts, 9)
        alone = [written(model, [prompt], 9)[0] for prompt in prompts]
        ids = torch.tensor([prompts[0]])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False, eos_token_id=None
        )
    assert together == alone and theirs[0, 3:].tolist() == together[0]
    stop = together[0][3]
    assert written(model, prompts[:1], 9, ends=stop.__eq__)[0] == together[0][: together[0].index(stop)]
