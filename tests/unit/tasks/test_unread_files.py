"""Files beside the data that forq does not read: what may be rows is refused by name, other files are named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from forq.errors import DataError
from forq.tasks import account, classify, text
from forq.tasks.rows import corpus
from forq.tasks.rows.table import read
from tests import tiny_lm


def table(path: Path, rows: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"film number {n} is {'good' if n % 2 else 'bad'},{'good' if n % 2 else 'bad'}" for n in range(rows)]
    path.write_text("\n".join(["text,label", *lines, ""]))
    return path


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("test.csv.gz", "unpack it first"),
        ("test.csv.zip", "unpack it first"),
        ("test/part.csv.gz", "unpack it first"),
        ("raw/part.parquet", "or give hf:.*raw, which the datasets library reads"),
        ("test.parquet", "convert it, or give hf:"),
        ("test.ndjson", "convert it first"),
        ("TEST.XLSX", "convert it first"),
    ],
)
def test_rows_of_another_kind_are_refused_by_name(tmp_path: Path, name: str, mend: str) -> None:
    table(tmp_path / "train.csv")
    other = table(tmp_path / name, 20)
    with pytest.raises(DataError, match=rf"{name}: expected one kind of file, as train\.csv is, .*; .*{mend}"):
        read(tmp_path)
    other.unlink()
    assert read(tmp_path).rows.keys() == {"train"}


def test_a_packed_table_may_lie_beside_what_it_holds(tmp_path: Path) -> None:
    table(tmp_path / "train.csv")
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(b"text"))
    assert read(tmp_path).unused == ("train.csv.gz",)


def test_other_files_are_named_and_the_usual_ones_are_not(tmp_path: Path) -> None:
    table(tmp_path / "train.csv")
    for name in ("README.md", "LICENSE", ".gitattributes", "plot.png", "notes.txt", "make.py"):
        (tmp_path / name).write_text("a")
    task = classify.open(tmp_path, tiny_lm.tokenizer(), seed=0)
    assert task.unused == ("make.py", "notes.txt") and "not read: make.py, notes.txt" in account(task).line
    for n in range(20):
        (tmp_path / f"a{n:02}.py").write_text("a")
    assert read(tmp_path).unused == (*(f"a{n:02}.py" for n in range(8)), "14 more files")


@pytest.mark.parametrize("name", ["two.rst", "three.text", "test.html", "deep/four.txt.gz", "five.pdf"])
def test_texts_of_another_kind_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "one.txt").write_text("film number says it is good . " * 200)
    other = tmp_path / name
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"bad")
    with pytest.raises(DataError, match=rf"{name}: expected one kind of file, as one\.txt is, found {other.suffix}"):
        text.open(tmp_path, tiny_lm.tokenizer(), seed=0)
    other.rename(other.with_suffix(".py"))
    (tmp_path / "LICENSE").write_text("a")
    assert corpus.files(tmp_path)[1] == (other.with_suffix(".py").relative_to(tmp_path).as_posix(),)


CONFIGS = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: a.csv\n"
INFO = "dataset_info:\n  features:\n  - name: label\n    dtype: {}\n"
CLASSES = INFO.format("\n      class_label:\n        names:\n          '0': negative\n")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (CONFIGS, "configs"),
        (CLASSES, "class_label"),
        (f"license: mit\n{CLASSES}{CONFIGS}", "configs and class_label"),
        (INFO.format("string"), None),
        ("license: mit\ntags:\n- configs\n", None),
    ],
)
def test_a_card_that_decides_how_a_folder_is_read_is_refused(tmp_path: Path, head: str, found: str | None) -> None:
    file = table(tmp_path / "a.csv")
    (tmp_path / "README.md").write_text(f"---\n{head}---\n\n# Reviews\n\nconfigs: none, class_label: none\n")
    if found is None:
        assert read(tmp_path).rows.keys() == {"train"}
        return
    with pytest.raises(DataError, match=rf"README\.md: .*found {found} in its head; give hf:{tmp_path}, which"):
        read(tmp_path)
    assert read(file).rows.keys() == {"train"}


def test_datasets_reads_what_a_card_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name, rows in (("a.csv", 20), ("b.csv", 6)):
        lines = [f"{name} {n},{n % 2}" for n in range(rows)]
        (tmp_path / name).write_text("\n".join(["text,label", *lines, ""]))
    configs = f"{CONFIGS}  - split: test\n    path: b.csv\n"
    classes = (
        "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n          '0': negative\n          '1': positive\n"
    )
    (tmp_path / "README.md").write_text(f"---\n{configs}{classes}---\n")
    found = read(f"hf:{tmp_path}")
    assert {split: len(rows) for split, rows in found.rows.items()} == {"train": 20, "test": 6}
    assert found.classes["test"]["label"] == ("negative", "positive")
