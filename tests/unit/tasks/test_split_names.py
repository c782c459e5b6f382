"""A file's name, or its folder's, says its split: it is read as it is meant or refused, not trained on by mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from forq.errors import DataError
from forq.tasks import classify, text
from forq.tasks.rows import corpus
from forq.tasks.rows.split_names import NAMES, of_data_set
from forq.tasks.rows.table import read
from tests import tiny_lm


def folder(where: Path, *names: str) -> Path:
    """Files of two rows (a table's) or two lines; the text of a row is the file's name."""
    for name in names:
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = path.suffix.lower()
        if kind in (".jsonl", ".json"):
            path.write_text(f'{{"text": "{name}"}}\n' * 2)
        elif kind in (".txt", ".md"):
            path.write_text(f"{name}\n" * 2)
        else:
            path.write_text(f"text\n{name}\n{name}\n")
    return where


def found(where: Path) -> dict[str, list[str]]:
    """The files of each split, by the text of their rows."""
    rows = read(where).rows
    return {split: list(dict.fromkeys(str(record.fields["text"]) for record in some)) for split, some in rows.items()}


SPLITS: list[tuple[tuple[str, ...], Mapping[str, list[str]]]] = [
    (("train.csv", "Test.csv"), {"train": ["train.csv"], "test": ["Test.csv"]}),
    (("my_train.csv", "test_data.csv"), {"train": ["my_train.csv"], "test": ["test_data.csv"]}),
    (("TRAIN.CSV", "test.CSV"), {"train": ["TRAIN.CSV"], "test": ["test.CSV"]}),
    (("train.tsv", "dev_matched.tsv"), {"train": ["train.tsv"], "validation": ["dev_matched.tsv"]}),
    (("train-v1.1.json", "dev-v1.1.json"), {"train": ["train-v1.1.json"], "validation": ["dev-v1.1.json"]}),
    (("train.csv", "squad.valid2.csv"), {"train": ["train.csv"], "validation": ["squad.valid2.csv"]}),
    (("train/a.csv", "train/b.csv", "Validation/rows.jsonl"),
     {"train": ["train/a.csv", "train/b.csv"], "validation": ["Validation/rows.jsonl"]}),
    (("train.csv", "dev/dev_matched.tsv", "dev/dev_mismatched.tsv"),
     {"train": ["train.csv"], "validation": ["dev/dev_matched.tsv", "dev/dev_mismatched.tsv"]}),
    (("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test_1.csv", "test_2.csv"),
     {"train": ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"], "test": ["test_1.csv", "test_2.csv"]}),
    (("a.csv", "latest.csv", "retraining.csv"), {"train": ["a.csv", "latest.csv", "retraining.csv"]}),
    (("training.csv", "testing.csv"), {"train": ["training.csv"], "test": ["testing.csv"]}),
    (("Training.csv", "eval.csv"), {"train": ["Training.csv"], "test": ["eval.csv"]}),
    (("training.jsonl", "evaluation.jsonl"), {"train": ["training.jsonl"], "test": ["evaluation.jsonl"]}),
    (("my_training_set/a.csv", "eval-data/b.csv"), {"train": ["my_training_set/a.csv"], "test": ["eval-data/b.csv"]}),
    (("a.csv", ".hidden/test.csv", ".test.csv", "model/config.json", "model/tokenizer.json", "run/journal.jsonl",
      "run/result.json", "run/checkpoint/config.json", "plots/a.png"), {"train": ["a.csv"]}),
    (("train/config.json",), {"train": ["train/config.json"]}),
]  # fmt: skip


@pytest.mark.parametrize(("names", "splits"), SPLITS)
def test_a_name_says_the_split(tmp_path: Path, names: tuple[str, ...], splits: Mapping[str, list[str]]) -> None:
    assert found(folder(tmp_path, *names)) == splits


REFUSED = [
    (("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv"),
     "a single file of validation data, found dev_matched.tsv and dev_mismatched.tsv; keep one .* sub-folder"),
    (("train.csv", "train.jsonl"), "a single file of train data, found train.csv and train.jsonl"),
    (("train.json", "dev-v1.1.json", "dev-v2.0.json"), "found dev-v1.1.json and dev-v2.0.json"),
    (("train.csv", "test-0-of-2.csv", "test-0-of-3.csv"), "found test-0-of-2.csv and test-0-of-3.csv"),
    (("train.csv", "val.csv", "validation/a.csv"), "a single file of validation data, found val.csv and validation"),
    (("train.csv", "val/a.csv", "dev/a.csv"), "a single file of validation data, found dev and val"),
    (("train.csv", "test.csv", "eval.csv"), "a single file of test data, found eval.csv and test.csv"),
    (("train.csv", "dev_eval.csv"), "expected a name with a single split, found validation and test"),
    (("data.csv", "eval.csv"), r"data\.csv: expected the name of a split in it, since eval\.csv has one"),
    (("train_test.csv",), "train_test.csv: expected a name with a single split, found train and test; rename it"),
    (("train.csv", "notes.csv"), r"notes\.csv: expected the name of a split in it, since train\.csv has one, .*notes"),
    (("rows.csv", "test/a.csv"), r"rows\.csv: expected the name of a split in it, since test has one, found none"),
    (("a.csv", "old/b.csv"), "old: expected a sub-folder with the name of a split, .* found tables in 'old'"),
    (("a.csv", "old/older/b.CSV"), "old: expected a sub-folder with the name of a split"),
    (("train.csv", "test/a/b.csv"), "a: expected tables in test itself, found deeper ones"),
    (("train/a.csv", "train/test.csv"), r"test\.csv: expected train data in train, found test in a name"),
    (("test.csv",), "found no training rows"),
    (("a.txt",), r"found no \.jsonl or \.json or \.csv or \.tsv file in it"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "says"), REFUSED)
def test_what_is_not_clear_is_refused(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(folder(tmp_path, *names))


def test_a_file_is_read_whatever_its_name_and_the_capitals_of_its_ending(tmp_path: Path) -> None:
    folder(tmp_path, "train_test.CSV", "old/a.Jsonl")
    assert found(tmp_path / "train_test.CSV") == {"train": ["train_test.CSV"]}
    assert found(tmp_path / "old" / "a.Jsonl") == {"train": ["old/a.Jsonl"]}


def test_a_file_of_labels_beside_the_rows_is_no_data(tmp_path: Path) -> None:
    rows = [{"text": f"number {n} is it", "label": n % 2} for n in range(40)]
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "labels.CSV").write_text("label,word\n0,bad\n1,good\n")
    with pytest.raises(DataError, match=r"labels\.CSV: expected the name of a split"):
        classify.open(tmp_path, tiny_lm.tokenizer(), seed=0)
    task = classify.open(tmp_path, tiny_lm.tokenizer(), seed=0, labels=str(tmp_path / "labels.CSV"))
    assert len(task.rows["test"]) == 40 and len(task.rows["train"]) == 36
    (tmp_path / "words").mkdir()
    deeper = (tmp_path / "labels.CSV").rename(tmp_path / "words" / "labels.csv")
    assert classify.open(tmp_path, tiny_lm.tokenizer(), seed=0, labels=str(deeper)).digest == task.digest


TEXTS: list[tuple[tuple[str, ...], Mapping[str, list[str]], tuple[str, ...]]] = [
    (("train.txt", "Test.TXT", "notes.md"), {"train": ["train.txt"], "test": ["Test.TXT"]}, ("notes.md",)),
    (("wiki_train.txt", "wiki_valid.txt", "README.md"),
     {"train": ["wiki_train.txt"], "validation": ["wiki_valid.txt"]}, ("README.md",)),
    (("train/a.txt", "train/b/c.md", "dev/a.txt"), {"train": ["a.txt", "c.md"], "validation": ["a.txt"]}, ()),
    (("train-0.txt", "train-1.txt", "x/test.txt"), {"train": ["train-0.txt", "train-1.txt"]}, ("x/test.txt",)),
    (("training/a.txt", "testing/a.txt"), {"train": ["a.txt"], "test": ["a.txt"]}, ()),
    (("training_set/a.txt", "test_set/b.txt"), {"train": ["a.txt"], "test": ["b.txt"]}, ()),
    (("a.txt", "x/test-plan.md", "test.txt"), {"train": ["a.txt", "test-plan.md"], "test": ["test.txt"]}, ()),
]  # fmt: skip


@pytest.mark.parametrize(("names", "splits", "unread"), TEXTS)
def test_texts_follow_the_same_names(tmp_path: Path, names, splits, unread) -> None:
    named, rest = corpus.files(folder(tmp_path, *names))
    assert {split: [path.name for path in paths] for split, paths in named.items()} == splits and rest == unread


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("train.txt", "train.md"), "a single file of train data, found train.md and train.txt"),
        (("train.txt", "valid.txt", "dev/a.txt"), "a single file of validation data, found dev and valid.txt"),
        (("train_test.txt",), "expected a name with a single split, found train and test"),
        (
            ("how to train a dog.txt", "cats.txt"),
            "all texts to name their split, as how to train a dog.txt does, found",
        ),
        (("test suite/b.md", "a.md"), r"all texts to name their split, as test suite does, found a\.md"),
        (("test-plan.md", "a.md"), r"all texts to name their split, as test-plan\.md does, found a\.md"),
    ],
)
def test_texts_that_are_not_clear_are_refused(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        text.open(folder(tmp_path, *names), tiny_lm.tokenizer(), seed=0)


def test_names_are_those_of_datasets() -> None:
    keywords = pytest.importorskip("datasets.data_files").SPLIT_KEYWORDS
    assert {name: str(split) for split, names in keywords.items() for name in names} == dict(NAMES)


def test_eval_beside_test_is_no_test_of_a_data_set() -> None:
    assert of_data_set(["training", "eval"]) == {"training": "train", "eval": "test"}
    assert of_data_set(["train", "validation", "dev", "test", "eval", "extra"]) == {
        "train": "train", "validation": "validation", "dev": "validation", "test": "test",
    }  # fmt: skip
