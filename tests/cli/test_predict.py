"""`--task classify` and `forq predict` as a user types them."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from pathlib import Path

import pytest

from forq.errors import ConfigError
from forq.runs import predict
from forq.runs.predict import Predicted
from forq.tasks.rows.record import Record

OPTIONS = ("--set", "task.text=review", "--set", "task.label=mood", "--set", "task.batch_rows=6")
OPTIONS += ("--set", "task.prompt={review}\\nIt is")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    lines = [f"film number {n} is it,{('good', 'bad')[n % 2]},{n}" for n in range(60)]
    path.write_text("\n".join(["review,mood,id", *lines, ""]))
    return path


def test_a_table_is_tuned_on_scored_reported_and_predicted(base, reviews, tmp_path, forq):
    out = tmp_path / "run"
    words = ("tune", base, "--task", "classify", "--data", reviews, *OPTIONS, "--steps", 2, "--out", out)
    done = forq(*words)
    assert done.returncode == 0, done.stderr
    assert "classes: bad 24, good 24; batches with as many rows of each class; ignored fields: id" in done.stderr
    assert "label-word prior (subtracted): bad " in done.stderr
    assert "test (the saved file), macro_f1" in done.stdout
    prior = tomllib.loads((out / "config.toml").read_text())["task"]["options"]["prior"]
    assert len(prior.split(",")) == 2
    assert forq(*words, "--resume").returncode == 0
    repeated = forq(*words, "--resume", "--set", "task.max_length=512", "--set", "task.prior=true")
    assert repeated.returncode == 0, repeated.stderr
    other = forq(*words, "--resume", "--set", "task.max_length=256")
    assert other.returncode == 1 and "--set task.max_length: the run has 512, found 256" in other.stderr, other.stderr

    result = json.loads((out / "result.json").read_text())
    for checkpoint in (out, out / "checkpoint"):
        scored = forq("eval", checkpoint, "--task", "classify", "--data", reviews, *OPTIONS, "--json")
        assert json.loads(scored.stdout)["loss"] == result["test"]["after"]["loss"], scored.stderr
        assert "label-word prior" in scored.stderr
    assert sum(map(sum, result["confusion"]["after"])) == result["test"]["after"]["rows"] == 6
    page = tmp_path / "report.html"
    assert forq("report", out, "--out", page).returncode == 0
    text = page.read_text()
    assert "Which class is taken for which" in text and "macro_f1" in text

    reviews.rename(tmp_path / "gone.csv")  # the journal knows the labels
    new = tmp_path / "new.tsv"
    new.write_text("id\treview\n" + "".join(f"{n}\tfilm number {n} is it\n" for n in range(7)))
    printed = forq("predict", out, "--data", new)
    assert printed.returncode == 0, printed.stderr
    rows = list(csv.DictReader(io.StringIO(printed.stdout)))
    assert [row["row"] for row in rows] == list("1234567")
    for row in rows:
        scores = {name: float(row[f"score {name}"]) for name in ("bad", "good")}
        assert row["label"] == max(scores, key=scores.__getitem__) and sum(scores.values()) == pytest.approx(
            1, abs=1e-5
        )
    assert "rows: 7;" in printed.stderr and "test 7" not in printed.stderr, "they are nobody's test rows"
    kept = forq("predict", out, "--data", new, "--keep", "id")
    beside = list(csv.DictReader(io.StringIO(kept.stdout)))
    assert [{"id": row.pop("id"), **row} for row in beside] == [{"id": str(n), **row} for n, row in enumerate(rows)]
    lines = tmp_path / "labels.jsonl"
    told = json.loads(forq("predict", out / "checkpoint", "--data", new, "--out", lines, "--json").stdout)
    assert told["rows"] == 7 and sum(told["counts"].values()) == 7 and told["out"] == str(lines)
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["label"] for row in written] == [row["label"] for row in rows]
    assert written[0]["scores"] == {name: float(rows[0][f"score {name}"]) for name in ("bad", "good")}
    whole = json.loads(forq("predict", out, "--data", new, "--json").stdout)
    assert whole["predictions"] == written and whole["classes"] == ["bad", "good"]
    again = forq("predict", out, "--data", new, "--out", lines)
    assert again.returncode == 1 and "exists already" in again.stderr
    assert forq("predict", out, "--data", new, "--out", lines, "--overwrite").returncode == 0


def test_a_score_of_a_run_reads_the_rows_as_the_run_did(base, reviews, tmp_path, forq):
    out = tmp_path / "run"
    own = ("--set", "task.prior=false", "--set", "task.second=id", "--seed", 1)
    done = forq("tune", base, "--task", "classify", "--data", reviews, *OPTIONS, *own, "--steps", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    scored = forq("eval", out, "--task", "classify", "--data", reviews, "--json")
    after = json.loads((out / "result.json").read_text())["test"]["after"]
    assert json.loads(scored.stdout)["loss"] == after["loss"], scored.stderr
    assert "taken out" not in scored.stderr
    other = forq("eval", out, "--task", "classify", "--data", reviews, "--seed", 0, "--json")
    assert json.loads(other.stdout)["loss"] != after["loss"]


def test_a_finished_run_is_not_shown_again_for_other_rows_in_its_file(base, reviews, tmp_path, forq):
    words = ("tune", base, "--task", "classify", "--data", reviews, *OPTIONS, "--steps", 1, "--out", tmp_path / "run")
    done = forq(*words)
    assert done.returncode == 0, done.stderr
    text = reviews.read_text()
    again = forq(*words, "--resume")
    assert again.returncode == 0 and "this run is finished" in again.stderr
    reviews.write_text(text.replace("good", "x").replace("bad", "good").replace("x", "bad"))
    refused = forq(*words, "--resume")
    assert refused.returncode == 1 and "give the data the run was started with" in refused.stderr, refused.stderr
    assert "this run is finished" not in refused.stderr and refused.stdout == ""


def test_what_cannot_be_predicted_is_refused(base, reviews, tmp_path, forq):
    for words, says in (
        (("--data", reviews, "--out", tmp_path / "x.txt"), "expected a name that ends in .csv or .jsonl"),
        (("--data", reviews, "--out", tmp_path / "nodir" / "x.csv"), f"expected a folder at {tmp_path / 'nodir'}"),
        (("--data", tmp_path / "none.csv"), "no data for task 'classify'"),
        (("--data", reviews, "--keep", "moood"), "--keep moood: expected a field of the rows (did you mean 'mood'?)"),
        (("--data", reviews, *OPTIONS), "expected the labels in a file, found none"),
        (("--data", reviews, "--task", "text"), "expected a classification task"),
        (("--data", reviews.parent, "--task", "classify-images"), "expected a classification task on texts"),
        (("--data", reviews, "--set", "task.txt=a"), "task 'classify' has no option 'txt' (did you mean 'text'?)"),
        (("--data", reviews, "--split", "test"), "--split: expected one of train"),
    ):
        done = forq("predict", base, *words)
        assert done.returncode == 1 and says in done.stderr, done.stderr


def test_fields_of_the_rows_are_kept_under_their_own_names():
    records = [Record({"id": 7, "tags": ["a", "b"]}, "1"), Record({"id": 8, "note": "x,y"}, "2")]
    plain = Predicted(("bad", "good"), ("good", "bad"), ((0.25, 0.75), (0.5, 0.5)))
    kept = predict.with_fields(plain, records, predict.fields_of(records, ["all"]))
    assert list(csv.reader(io.StringIO(kept.text(".csv")))) == [
        ["row", "label", "score bad", "score good", "id", "tags", "note"],
        ["1", "good", "0.25", "0.75", "7", '["a", "b"]', ""],
        ["2", "bad", "0.5", "0.5", "8", "", "x,y"],
    ]
    assert json.loads(kept.text(".jsonl").splitlines()[1])["note"] == "x,y"
    assert predict.with_fields(plain, records, predict.fields_of(records, [])) == plain
    with pytest.raises(ConfigError, match="other names than the columns that are written, found 'label'"):
        predict.fields_of([Record({"label": "x"}, "1")], ["all"])


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb", 'a,"b"', "", " a "])
def test_a_kept_text_is_the_same_in_the_table(text):
    """A carriage return ends a line for readers of CSV, pandas among them, unless it is in quotes."""
    predicted = Predicted(("bad",), ("bad",), ((1.0,),), ({"text": text, "id": 7},))
    header, row = csv.reader(io.StringIO(predicted.text(".csv"), newline=""), strict=True)
    assert dict(zip(header, row, strict=True)) == {
        "row": "1",
        "label": "bad",
        "score bad": "1.0",
        "text": text,
        "id": "7",
    }


def test_tasks_are_listed_by_the_names_that_are_given(forq):
    listed = forq("ls", "tasks").stdout
    assert "text-to-image" in listed and "text_to_image" not in listed and "classify" in listed
