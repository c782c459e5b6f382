"""``forq.tune`` from Python: rows in memory, settings as mappings, and the files it leaves."""

import json
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest

import forq as library
from forq.recipes import recipe
from forq.runs.config import TaskConfig
from forq.runs.data import as_path, path_of
from forq.runs.journal import read
from forq.runs.open_task import open_task
from forq.runs.oracles.local import Local
from forq.runs.run import Run
from forq.scalars.losses import means

ROWS = [{"prompt": f"question {n} ?", "completion": f" answer {n % 3}"} for n in range(40)]
SMALL = {"task": {"max_length": 32, "batch_rows": 2}}


def test_rows_in_memory_are_the_rows_of_a_file(base, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    runs = [
        library.tune(base, "completion", data, steps=2, out=tmp_path / name, settings=SMALL)
        for name, data in (("file", tmp_path / "rows.jsonl"), ("list", ROWS), ("generator", iter(ROWS)))
    ]
    assert all(read(run.journal).lines == read(runs[0].journal).lines for run in runs)
    assert (tmp_path / "list/rows/train.jsonl").read_text() == (tmp_path / "rows.jsonl").read_text()


def test_a_run_from_python_leaves_the_files_of_the_command_line(base, tmp_path, forq):
    splits = {"train": ROWS[:30], "test": ROWS[30:]}
    run = library.tune(base, "completion", splits, steps=2, out=tmp_path / "a", settings=SMALL)
    words = ("tune", base, "--task", "completion", "--data", tmp_path / "a/rows", "--out", tmp_path / "b")
    done = forq(*words, "--steps", 2, "--set", "task.max_length=32", "--set", "task.batch_rows=2")
    assert done.returncode == 0, done.stderr
    names = [sorted(str(path.relative_to(tmp_path / run)) for path in (tmp_path / run).rglob("*")) for run in "ab"]
    assert [name for name in names[0] if not name.startswith("rows")] == names[1]
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in "ab"]
    assert run.result == results[0]
    for side, where in (("before", base), ("after", run.checkpoint)):
        loss = run.task.evaluate(library.load(where), "test").loss
        assert run.result["test"][side]["loss"] == loss
    apart = ("seconds", "peak_mb", "checkpoint", "journal")
    assert all({k: v for k, v in result.items() if k not in apart} for result in results)
    python, line = ({k: v for k, v in result.items() if k not in apart} for result in results)
    assert python == line


def test_the_same_call_repeated_resumes_a_run_on_rows_in_memory(base, tmp_path):
    def call(rows):
        return library.tune(base, "completion", rows, steps=2, out=tmp_path / "run", settings=SMALL, resume=True)

    first = call(ROWS)
    assert read(call(ROWS).journal).lines == read(first.journal).lines
    written = (tmp_path / "run/rows/train.jsonl").read_bytes()
    for others in ([*ROWS, {"prompt": "one", "completion": " more"}], {"train": ROWS, "test": ROWS[:3]}):
        with pytest.raises(library.DataError, match="rows the run was begun with"):
            call(others)
    assert (tmp_path / "run/rows/train.jsonl").read_bytes() == written, "the rows of the run are kept"
    assert sorted(path.name for path in (tmp_path / "run/rows").iterdir()) == ["train.jsonl"]


def test_splits_of_a_call_that_failed_early_are_gone(tmp_path):
    for nothing in ([], {}):
        with pytest.raises(library.DataError, match="data: expected rows, found none"):
            as_path(nothing, tmp_path)
    assert not any(tmp_path.iterdir())
    as_path({"train": ROWS, "test": ROWS[:3]}, tmp_path)
    as_path(ROWS, tmp_path)
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"rest": ROWS}, "found 'rest'"),
        ({"dev": ROWS, "val": ROWS}, "found two names of validation, one of them 'val'"),
        ({"prompt": ["a", "b"], "completion": ["c", "d"]}, "found 'prompt'; rows are a list of mappings"),
        (["a", "b"], "train row 0: expected a mapping of fields, found str"),
        ([*ROWS, {"prompt": b"bytes"}], "train row 40: expected text"),
        ([{"prompt": float("nan")}], "train row 0"),
    ],
)
def test_rows_that_cannot_be_written_are_named(data, says, tmp_path):
    with pytest.raises(library.DataError, match=says):
        as_path(data, tmp_path)


def test_splits_may_be_called_as_files_are_and_numbers_may_be_numpys(tmp_path):
    as_path({"train": [{"text": "a", "label": np.int64(3), "weight": np.float32(0.5)}], "Dev": ROWS}, tmp_path)
    assert json.loads((tmp_path / "rows/train.jsonl").read_text()) == {"text": "a", "label": 3, "weight": 0.5}
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["train.jsonl", "validation.jsonl"]


def test_a_run_knows_its_data_from_any_folder_and_sees_that_it_was_changed(base, tmp_path, forq, monkeypatch):
    for name, answer in (("here", "answer"), ("there", "another")):
        (tmp_path / name).mkdir()
        rows = [{"prompt": f"question {n} ?", "completion": f" {answer} {n % 3}"} for n in range(40)]
        (tmp_path / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path / "here")
    run = library.tune(base, "completion", "rows.jsonl", steps=1, eval_every=1, out="run", settings=SMALL)
    own = run.result["test"]["after"]["loss"]
    monkeypatch.chdir(tmp_path / "there")
    scored = forq("eval", tmp_path / "here/run", "--json")
    assert json.loads(scored.stdout)["loss"] == own and "was changed" not in scored.stderr, scored.stderr
    (tmp_path / "there/rows.jsonl").replace(tmp_path / "here/rows.jsonl")
    scored = forq("eval", tmp_path / "here/run", "--json")
    assert json.loads(scored.stdout)["loss"] != own and "was changed after the run" in scored.stderr


def test_an_open_task_has_its_own_data_and_options(base, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    model = library.load(base)
    task = open_task(TaskConfig(name="completion", data=str(tmp_path / "rows.jsonl")), model, 0)
    for beside in (
        {"data": ROWS},
        {"reward": "accuracy"},
        {"tokens_per_probe": 64},
        {"micro_batch_tokens": 64},
        {"settings": {"task": {"batch_rows": 2}}},
    ):
        with pytest.raises(library.ConfigError, match="an open task has its own"):
            library.tune(model, task, steps=1, out=tmp_path / "run", **beside)
    assert not (tmp_path / "run").exists()


def test_data_that_is_left_out_is_not_the_current_folder(base, tmp_path, monkeypatch):
    (tmp_path / "stray.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORQ_DATA", raising=False)
    with pytest.raises(library.DataError, match="name a file or folder as its data, or set"):
        library.tune(base, "completion", steps=1, out=tmp_path / "run")


class Labelled(list):
    """Rows as ``datasets.Dataset`` gives them: numbers for labels, and their names in its features."""

    features = MappingProxyType({"text": object(), "label": SimpleNamespace(names=["terrible", "great"])})


REVIEWS = [{"text": f"film {n}", "label": n % 2} for n in range(60)]


def test_labels_of_a_data_set_in_memory_have_the_names_it_gives(base, tmp_path):
    run = library.tune(base, "classify", Labelled(REVIEWS), steps=1, out=tmp_path / "run", settings=SMALL)
    assert run.task.names == ("great", "terrible") and run.task.words == (" great", " terrible")
    as_path({"train": Labelled(REVIEWS), "test": Labelled([*REVIEWS, {"text": "none", "label": None}])}, tmp_path)
    for split in ("train", "test"):
        rows = [json.loads(line) for line in (tmp_path / f"rows/{split}.jsonl").read_text().splitlines()]
        assert rows[:2] == [{"text": "film 0", "label": "terrible"}, {"text": "film 1", "label": "great"}]
    for number in (-1, 2):
        with pytest.raises(library.DataError, match=f"test row 1, 'label': expected a label 0 … 1, found {number}"):
            as_path({"train": Labelled(REVIEWS), "test": Labelled([REVIEWS[0], {"label": number}])}, tmp_path)


def test_a_run_that_was_begun_on_the_numbers_of_labels_goes_on_with_them(tmp_path):
    as_path(REVIEWS, tmp_path)
    before = (tmp_path / "rows/train.jsonl").read_bytes()
    as_path(Labelled(REVIEWS), tmp_path, begun=True)
    assert (tmp_path / "rows/train.jsonl").read_bytes() == before
    with pytest.raises(library.DataError, match="rows the run was begun with"):
        as_path(Labelled(REVIEWS[:-1]), tmp_path, begun=True)
    as_path(Labelled(REVIEWS), tmp_path)
    as_path(Labelled(REVIEWS), tmp_path, begun=True)


def test_a_path_becomes_whole_and_a_hub_id_stays_what_it_is(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert path_of("hf:org/name", "completion", tmp_path) == "hf:org/name"
    assert path_of(Path("a"), "completion", tmp_path) == path_of("a", "completion", tmp_path) == str(tmp_path / "a")
    monkeypatch.setenv("FORQ_DATA", str(tmp_path))
    (tmp_path / "sst2").mkdir()
    monkeypatch.chdir("/")
    assert path_of("", "sst2", tmp_path) == str(tmp_path / "sst2") and path_of("a", "sst2", tmp_path).endswith("/a")
    with pytest.raises(library.DataError, match=r"looked at nowhere or .*/nowhere"):
        path_of("nowhere", "sst2", tmp_path)
    monkeypatch.delenv("FORQ_DATA")
    with pytest.raises(library.DataError, match=r"'sst2': name a file or folder as its data, or set \$FORQ_DATA"):
        path_of("", "sst2", tmp_path)


def test_settings_are_a_nested_mapping_or_a_whole_method(base, tmp_path):
    small = {**SMALL, "rule": {"lr": 1e-3}, "scales": {"clip": 2.0}}
    run = library.tune(base, "completion", ROWS, steps=1, out=tmp_path / "a", settings=small)
    assert run.config.method.rule.lr == 1e-3 and run.config.method.groups["scales"].clip == 2.0
    method = recipe("qzo-paper").settings
    assert library.tune(base, "completion", ROWS, steps=1, out=tmp_path / "b", settings=method).config.method == method
    with pytest.raises(library.ConfigError, match=r"did you mean 'rule\.lr'"):
        library.tune(base, "completion", ROWS, steps=1, out=tmp_path / "c", settings={"rule": {"lrr": 1}})


def test_a_run_without_a_folder_says_where_it_is(base, caplog):
    run = library.tune(base, "completion", ROWS, steps=1, settings=SMALL)
    assert str(run.folder) in caplog.text and (run.folder / "result.json").is_file()


def test_another_oracle_can_answer(base, tmp_path):
    """The losses are asked of what the caller injects, and the journal holds its answers."""
    first = library.tune(base, "completion", ROWS, steps=1, out=tmp_path / "a", settings=SMALL, recipe="qzo-slopes")

    def size(step):
        return sum(float(leaf.read().square().mean()) for leaf in run.space.leaves)

    run = Run.begin(
        tmp_path / "b",
        first.config,
        library.load(base),
        first.task,
        oracle=lambda space: Local(space, lambda step: step, size),
    )
    before = size(0)
    list(run.events())
    assert read(run.journal).lines[0].losses[0].mean == pytest.approx(before)
    assert read(run.journal).lines != read(first.journal).lines


def test_rows_on_record_change_nothing_but_the_journal(base, tmp_path, forq):
    """An oracle that answers rows: the same run, and its journal replays and verifies with the rows in it."""
    first = library.tune(base, "completion", ROWS, steps=2, out=tmp_path / "a", settings=SMALL, recipe="qzo-slopes")
    model, task = library.load(base), first.task
    run = Run.begin(
        tmp_path / "b",
        first.config,
        model,
        task,
        oracle=lambda space: Local(space, task.batch, lambda batch: task.losses(model, batch)),
    )
    list(run.events())
    run.finish()
    plain, rows = (read(run.journal).lines for run in (first, run))
    assert [means(line.losses) for line in plain] == [means(line.losses) for line in rows]
    assert [line.digest for line in plain] == [line.digest for line in rows]
    assert all(answer.each is None for line in plain for answer in line.losses)
    assert all(len(answer.each) == 2 for line in rows for answer in line.losses)
    done = forq("verify", run.folder, "--base", base)
    assert done.returncode == 0 and "every digest rebuilt" in done.stdout, done.stderr


def test_a_folder_called_data_is_somebody_elses(base, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text("mine")
    with pytest.raises(
        library.ConfigError, match="expected a new or empty folder, found other files; choose another out"
    ):
        library.tune(base, "completion", ROWS, steps=1, out=tmp_path, settings=SMALL)
    assert (tmp_path / "data/train.jsonl").read_text() == "mine"
