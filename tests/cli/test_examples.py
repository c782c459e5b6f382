"""The commands the pages show with files of examples/ run as they stand, shortened, on a tiny checkpoint."""

import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = sorted(
    {
        line
        for page in (ROOT / "docs").glob("*.md")
        for _, block in re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.S)
        for line in block.splitlines()
        if line.startswith("forq tune") and "examples/" in line
    }
)


def test_the_pages_show_every_example():
    shown = set(re.findall(r"examples/([\w.]+)", " ".join(LINES)))
    elsewhere = {"ray_oracle.py"}  # a program; tests/oracles/test_ray_oracle.py runs it
    assert {path.name for path in (ROOT / "examples").glob("*.*")} - elsewhere <= shown
    assert all(f"examples/{name}" in (ROOT / "docs" / "ranks.md").read_text() for name in elsewhere)


@pytest.mark.parametrize("line", LINES)
def test_an_example_runs(line, base, tmp_path, monkeypatch, forq):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line, comments=True)[1:]
    words[words.index("CKPT")] = str(base)
    words[words.index("--out") + 1] = str(tmp_path / "run")
    short = ["--steps", "2", "--set", "task.batch_rows=4", "--set", "task.train_rows=12", "--set", "task.test_rows=4"]
    done = forq(
        *words, *short, "--set", "rule.lr=1e-3", "--set", "estimator.eps=0.01", "--set", "rule.clip=off", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test"]["after"]["loss"] > 0


def test_notes_ask_each_about_its_own_text():
    rows = [json.loads(line) for line in (ROOT / "examples" / "notes.jsonl").read_text().splitlines()]
    assert len(rows) == 200 and len({row["prompt"] for row in rows}) > 190
    for row in rows:  # every answer but "… did." repeats words of its prompt
        words = set(re.findall(r"\w+", row["prompt"].lower()))
        assert set(re.findall(r"\w+", row["completion"].lower())) - words <= {"did", "in", "the"}
