"""Files of rows that are wrong in every way a file can be: each is refused with its line, or read as it is meant."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from forq.errors import DataError
from forq.tasks import account, boolq, classify, completion, sst2, text
from forq.tasks.rows.table import read
from tests import tiny_lm


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fields(path: Path) -> list[dict]:
    return [dict(record.fields) for record in read(path).rows["train"]]


HALF = r'{"prompt": "a", "completion": "smile \ud83d"}'
WHERE = [
    (HALF, r"half of a surrogate pair, \ud83d, at character 6 of 'smile \ud83d'"),
    (r'{"prompt": "a", "extra": [{"x": ["\uDE00"]}]}', r"half of a surrogate pair, \ude00"),
    (r'{"prompt \ud83d": "a"}', "half of a surrogate pair"),
    ('{"text": "a", "text": "b"}', "the key 'text' stands twice"),
    ('{"a": {"b": 1, "b": 1}}', "the key 'b' stands twice"),
    ('{"text": "a", "score": NaN}', "NaN is no number of JSON"),
    ('{"text": "a", "score": -Infinity}', "-Infinity is no number"),
    ('{"text": "a", "score": 1e999}', "1e999 is too large"),
    ('{"text": ' + "[" * 5000 + "]" * 5000 + "}", "more than 100 lists and objects"),
    ('{"text": ' + "[" * 101 + "]" * 101 + "}", "more than 100 lists and objects"),
    ('{"text": ' + "9" * 5000 + "}", "not JSON"),
    ("[1, 2]", "expected an object with fields, found list"),
    ('"text"', "expected an object with fields, found str"),
    ("null", "expected an object with fields, found NoneType"),
]


@pytest.mark.parametrize(("line", "says"), WHERE)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_line_of_json_that_cannot_be_is_named(tmp_path, name, line, says):
    path = file(tmp_path, name, f'{{"text": "fine"}}\n\n{line}\n')
    with pytest.raises(DataError) as refused:
        read(path)
    assert f"{name}, line 3: " in str(refused.value) and says in str(refused.value)
    str(refused.value).encode()


def test_a_row_of_an_array_that_cannot_be_is_named(tmp_path):
    with pytest.raises(DataError, match=r"rows\.json, row 2: half of a surrogate pair"):
        read(file(tmp_path, "rows.json", f'[{{"text": "a"}},\n {HALF}]'))
    with pytest.raises(DataError, match=r"rows\.json: found no rows, the list is empty"):
        read(file(tmp_path, "rows.json", '{"data": []}'))
    with pytest.raises(DataError, match=r"rows\.json: not JSON .*stands twice"):
        read(file(tmp_path, "rows.json", '{\n"text": "a",\n"text": "b"\n}'))


def test_both_halves_of_a_pair_are_a_character(tmp_path):
    assert fields(file(tmp_path, "rows.jsonl", r'{"text": "\ud83d\ude00 \\ud83d"}')) == [{"text": "\U0001f600 \\ud83d"}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \n\r\n"])
def test_a_file_without_rows_is_refused(tmp_path, name, content):
    with pytest.raises(
        DataError, match=rf"{name}(: found no rows|, line 1: expected a header|: a header and no rows|: not JS)"
    ):
        read(file(tmp_path, name, content))


def test_a_split_without_rows_is_refused(tmp_path):
    file(tmp_path, "train.jsonl", '{"text": "a"}\n')
    file(tmp_path, "validation.jsonl", "\n")
    with pytest.raises(DataError, match=r"validation\.jsonl: found no rows, the file holds blank lines only"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a\tb\n", ": a header and no rows"),
        ("a\ta\n1\t2\n", ", line 1: two columns are called 'a'"),
        ("a\t\t\n1\t2\t3\n", ", line 1: two columns have no name"),
        ("a\tb\n1\t2\n3\n", ", line 3: expected 2 fields"),
        ("a\tb\n1\t2\t3\n", ", line 2: expected 2 fields"),
    ],
)
def test_a_table_that_cannot_be_is_refused(tmp_path, content, says):
    for name, table in (("rows.tsv", content), ("rows.csv", content.replace("\t", ","))):
        with pytest.raises(DataError) as refused:
            read(file(tmp_path, name, table))
        assert f"{name}{says}" in str(refused.value)


def test_quotes_are_letters_between_tabs_and_quotes_between_commas(tmp_path):
    assert fields(file(tmp_path, "rows.tsv", '\ufeffa\tb\r\n"x\ty"\r\n')) == [{"a": '"x', "b": 'y"'}]
    assert fields(file(tmp_path, "rows.csv", '\ufeffa,b\r\n"x,\ny",z\r\n\r\n')) == [{"a": "x,\ny", "b": "z"}]
    with pytest.raises(DataError, match=r"rows\.csv, line 2: "):
        read(file(tmp_path, "rows.csv", 'a,b\n"x"y,z\n'))


def test_quotes_that_a_writer_of_csv_put_between_tabs_are_said(tmp_path):
    texts = ['He said "hello" to me', '"Great"', "plain", '"half', 'a "word" in it']
    written = tmp_path / "rows.tsv"
    with written.open("w", newline="") as out:
        writer = csv.writer(out, delimiter="\t", lineterminator="\n")  # as pandas' to_csv does
        writer.writerows([("text", "label"), *((text, "ab"[n % 2]) for n, text in enumerate(texts * 6))])
    quoted = sum(line.startswith('"') for line in written.read_text().splitlines())
    table = read(written)
    assert table.quoted == quoted > 0
    task = classify.open(written, tiny_lm.tokenizer(), seed=0, prior=False)
    assert f"{quoted} rows of TSV files have a field in quotes" in account(task).warnings[0]
    glue = ['a "quotation"', '"all of it"', '""', '"', '"" and ""x""y', "``so''"]
    assert read(file(tmp_path, "glue.tsv", "\n".join(["text", *glue]))).quoted == 0


def test_one_huge_line_is_read(tmp_path):
    huge = "word " * 200_000
    bound = csv.field_size_limit()
    for name, content in (
        ("rows.jsonl", json.dumps({"text": huge})),
        ("rows.csv", f'text,id\n"{huge}",1\n'),
        ("rows.tsv", f"text\tid\n{huge}\t1\n"),
    ):
        assert fields(file(tmp_path, name, content))[0]["text"] == huge
    assert csv.field_size_limit() == bound


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tsv", "rows.txt"])
def test_utf_16_is_called_what_it_is(tmp_path, name, encoding):
    path = file(tmp_path, name, "text,id\na fine film,1\n".encode(encoding))
    with pytest.raises(DataError, match=r"byte \d.*looks like UTF-16.*iconv"):
        if name == "rows.txt":
            text.open(path, tiny_lm.tokenizer(), seed=0)
        else:
            read(path)


def test_tasks_that_bring_their_own_layout_read_as_strictly(tmp_path):
    (tmp_path / "boolq").mkdir()
    boolq.example(tmp_path / "boolq")
    with (tmp_path / "boolq" / "val.jsonl").open("a") as stream:
        stream.write(r'{"question": "\ud83d", "passage": "a", "label": true}')
    with pytest.raises(DataError, match=r"val\.jsonl, line 101: .*half of a surrogate pair"):
        boolq.open(tmp_path / "boolq", tiny_lm.tokenizer(), seed=0)
    sst2.example(tmp_path)
    file(tmp_path, "dev.tsv", "label\tlabel\tsentence\n1\t1\tfine\n")
    with pytest.raises(DataError, match=r"dev\.tsv, line 1: two columns are called 'label'"):
        sst2.open(tmp_path, tiny_lm.tokenizer(), seed=0)


@pytest.mark.parametrize("value", [None, 3, ["a"], {"a": "b"}])
def test_what_is_no_text_is_refused_with_its_line(tmp_path, value):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": value}]
    path = file(tmp_path, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows) * 3)
    with pytest.raises(DataError, match=r"line [246]: expected text in 'completion'"):
        completion.open(path, tiny_lm.tokenizer(), seed=0)


def test_splits_of_a_data_set_that_are_not_read_are_named(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = datasets.Dataset.from_list([{"text": f"film {n}"} for n in range(4)])
    datasets.DatasetDict({"train": rows, "validation": rows, "dev": rows, "extra": rows}).save_to_disk(tmp_path / "set")
    table = read(tmp_path / "set")
    assert len(table.rows["validation"]) == 8 and table.unused == ("split extra",)


def test_each_split_of_a_data_set_has_label_names_of_its_own(tmp_path):
    """``class_encode_column`` numbers the labels of every split by itself, so 0 may be bad here and good there."""
    datasets = pytest.importorskip("datasets")

    def encoded(labels: list[str]):
        names = sorted(set(labels))
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        rows = [{"text": f"film is {label}", "label": names.index(label)} for label in labels]
        return datasets.Dataset.from_list(rows, features=features)

    own = {"train": encoded(["bad", "good", "mixed"] * 20), "test": encoded(["good", "mixed"] * 10)}
    datasets.DatasetDict(own).save_to_disk(tmp_path / "set")
    task = classify.open(tmp_path / "set", tiny_lm.tokenizer(), seed=0, prior=False)
    for split in ("train", "test"):
        for row in task.rows[split]:
            text = task.tokenizer.decode(row.prompt, skip_special_tokens=True)
            assert f"film is {task.names[row.label]}" in text
    datasets.DatasetDict({**own, "val": own["train"], "dev": own["test"]}).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match="dev: expected the label names of the other validation rows"):
        read(tmp_path / "two")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.csv",
            "text;label\nfilm, good;1\n",
            r"line 1: .* found 'text;label'; .* separated by ';': save it with commas",
        ),
        ("a.csv", "text\tlabel\nfilm\t1\n", "the header looks separated by tabs: name it .tsv"),
        ("a.jsonl.gz", b"\x1f\x8b", r"found \.gz; unpack it first"),
    ],
)
def test_a_table_in_another_form_is_refused_with_what_to_do(tmp_path, name, content, says):
    with pytest.raises(DataError, match=says):
        read(file(tmp_path, name, content))
    if name.endswith(".gz"):
        with pytest.raises(DataError, match=r"file in it, but a\.jsonl\.gz: unpack it first"):
            read(tmp_path)
