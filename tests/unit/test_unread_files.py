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
