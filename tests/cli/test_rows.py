"""What a user sees of the rows before a run spends anything on them."""

from __future__ import annotations

import json


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(count, words=1):
    return [{"prompt": f"film number {n} was", "completion": " good" * words, "id": n} for n in range(count)]


def test_inspect_shows_rows_as_the_model_will_see_them(base, tmp_path, forq):
    data = written(tmp_path / "rows.jsonl", pairs(10))
    done = forq("inspect", base, "--data", data, "--rows", 1)
    assert done.returncode == 0, done.stderr
    assert "rows: train 8, validation 1, test 1; ignored fields: id" in done.stderr and "BOS" in done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    learned = [rest.split(maxsplit=1)[1] for mark, *rest in filter(None, lines) if mark == "*" for rest in rest]
    assert learned == ["' g'", "'ood'", "'</s>'"]
    assert "train row 1 of 8" in done.stdout and "'<s>'" in done.stdout and "row 2" not in done.stdout


def test_inspect_of_plain_text_names_its_task(base, tmp_path, forq):
    (tmp_path / "notes.txt").write_text("hello")
    done = forq("inspect", base, "--data", tmp_path / "notes.txt")
    assert done.returncode == 1 and "found .txt; plain texts are for the task text" in done.stderr


def test_inspect_gives_rows_as_data_for_any_task(base, text, tmp_path, forq):
    words = ("--task", "text", "--data", text, "--set", "task.max_length=16", "--rows", 3, "--json")
    found = json.loads(forq("inspect", base, *words).stdout)
    assert len(found["rows"]) == 3 and found["data"]["max_length"] == 16 and found["reading"]
    (segment,) = found["rows"][0]["segments"]
    assert [token["learned"] for token in segment["tokens"]] == [False] + [True] * 15


def test_rows_that_are_lost_are_said_and_most_of_them_refused(base, tmp_path, forq):
    data = written(tmp_path / "rows.jsonl", [*pairs(14), *pairs(6, words=60)])
    words = ("--task", "completion", "--data", data, "--set", "task.max_length=48")
    done = forq("eval", base, *words, "--split", "test", "--json")
    told = json.loads(done.stdout)["data"]
    assert list(told["splits"]) == ["test"] and "rows: test " in done.stderr and "train" not in done.stderr
    out = tmp_path / "run"
    done = forq("tune", base, *words, "--out", out, "--steps", 1, "--set", "move=norms", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["data"]
    splits = told["splits"].values()
    assert sum(split["read"] for split in splits) == 20 and sum(split["dropped"] for split in splits) == 6
    assert "warning: rows: " in done.stderr and json.loads((out / "result.json").read_text())["data"] == told
    page = tmp_path / "report.html"
    assert forq("report", out, "--out", page).returncode == 0
    assert "dropped" in page.read_text() and "ignored fields: id" in page.read_text()
    data = written(tmp_path / "most.jsonl", [*pairs(3), *pairs(17, words=60)])
    done = forq(
        "tune", base, "--task", "completion", "--data", data, "--out", tmp_path / "no", "--set", "task.max_length=48"
    )
    assert done.returncode == 1 and "rows of train would be dropped" in done.stderr and not (tmp_path / "no").exists()


def test_half_a_surrogate_pair_is_refused_with_its_line(base, tmp_path, forq):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "fine"}\n{"text": "smile \\ud83d"}\n')
    done = forq("inspect", base, "--data", data)
    assert done.returncode == 1 and "rows.jsonl, line 2" in done.stderr and "Traceback" not in done.stderr
