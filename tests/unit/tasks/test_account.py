"""What became of the rows: counts, warnings, what is refused, and what nothing reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forq.errors import DataError
from forq.tasks import Account, account, boolq, classify, completion, squad, sst2, text
from forq.tasks.objectives.rewarded import rewarded
from forq.tasks.objectives.rewards import f1
from forq.tasks.rows.account import nine_in_ten
from forq.tasks.rows.taken import Whole
from tests import tiny_encoders, tiny_lm

TOKENIZER = tiny_lm.tokenizer()


def written(folder: Path, rows: list[dict], name: str = "train.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def pairs(short: int, long: int, words: int = 60) -> list[dict]:
    fits = [{"prompt": f"film {n}", "completion": " good"} for n in range(short)]
    return fits + [{"prompt": f"film {n}", "completion": " film" * words} for n in range(long)]


def opened(folder: Path, train: list[dict], **options):
    written(folder, train)
    for name in ("validation.jsonl", "test.jsonl"):
        written(folder, pairs(10, 0), name)
    return completion.open(folder, TOKENIZER, seed=0, **options)


def test_rows_are_counted_split_by_split(tmp_path):
    rows = [*pairs(30, 2), {"prompt": "film " * 60, "completion": " good", "id": 7}]
    found = account(opened(tmp_path, rows, max_length=24))
    assert found.line == (
        "rows: train 31 (2 dropped, 1 truncated at 24 tokens), validation 10, test 10; ignored fields: id"
    )
    assert found.plain()["splits"]["train"] == {"read": 33, "used": 31, "dropped": 2, "truncated": 1}
    assert found.warnings == () and found.plain()["ignored"] == ["id"]
    assert found.only("test").line == "rows: test 10; ignored fields: id"


def test_rows_that_limits_leave_out_were_read(tmp_path):
    found = account(opened(tmp_path / "named", pairs(30, 0), max_length=24, train_rows=20, test_rows=4))
    assert found.line == "rows: train 20 of 30, validation 10, test 4 of 10"
    assert found.only("test").plain()["splits"]["test"] == {"read": 10, "used": 4, "dropped": 0, "truncated": 0}

    alone = completion.open(written(tmp_path / "alone", pairs(30, 0)), TOKENIZER, seed=0, test_rows=2)
    found = account(alone)
    assert found.line == "rows: train 25, validation 3, test 2" and sum(map(found.read, found.splits)) == 30
    assert found.only("test").line == "rows: test 2 of 30", "it is drawn from all rows"


@pytest.mark.parametrize("most", [None, 7])
def test_data_that_is_only_scored_has_test_rows_only(tmp_path, most):
    whole = Whole(most)
    alone = completion.open(written(tmp_path / "alone", pairs(1, 29)), TOKENIZER, seed=0, whole=whole, test_rows=1)
    found = account(alone)
    assert found.used == {"test": most or 30} and found.read("test") == 30
    named = opened(tmp_path / "named", pairs(30, 0), whole=whole, test_rows=4)
    assert account(named).used == {"train": 30, "validation": 10, "test": 4}
    film = written(tmp_path / "films", [{"text": f"film {n}", "label": n % 2} for n in range(30)])
    films = classify.open(film, TOKENIZER, seed=0, whole=whole, prior=False)
    assert account(films).used == {"test": most or 30} and films.by_class is None


def test_above_a_tenth_dropped_the_length_that_helps_is_named(tmp_path):
    rows = pairs(9, 4)
    (warning,) = account(opened(tmp_path / "a", rows, max_length=24)).warnings
    enough = int(warning.partition("task.max_length=")[2].split()[0])
    assert warning.startswith("rows: train 4 of 13 (31%) are dropped")
    assert account(opened(tmp_path / "a", rows, max_length=enough)).warnings == ()
    assert account(opened(tmp_path / "a", rows, max_length=enough - 1)).warnings


def test_a_reward_is_given_every_field_of_a_row_of_ones_own(tmp_path):
    task = opened(tmp_path, [{**row, "id": 1} for row in pairs(9, 0)])
    assert account(task).ignored == ("id",) and account(rewarded(task, f1, "f1", "")).ignored == ()


def test_exactly_a_tenth_is_no_warning(tmp_path):
    assert account(opened(tmp_path, pairs(9, 1), max_length=24)).warnings == ()


def test_above_a_tenth_truncated_the_part_and_the_length_are_named(tmp_path):
    rows = [{"prompt": "film " * n, "completion": " good"} for n in range(2, 42)]
    (warning,) = account(opened(tmp_path / "a", rows, max_length=24)).warnings
    assert "longer than 24 tokens and lose the beginning of the prompt; task.max_length=" in warning
    enough = int(warning.partition("task.max_length=")[2].split()[0])
    assert account(opened(tmp_path / "a", rows, max_length=enough)).truncated["train"] == 4
    assert account(opened(tmp_path / "a", rows, max_length=enough - 1)).truncated["train"] > 4


def test_most_training_rows_lost_is_refused(tmp_path):
    """Twenty conversations, seventeen of them longer than the limit, trained on one row without a word."""
    said = r"completion: 17 of 20 rows of train would be dropped, .* 24 tokens; task\.max_length=\d+ holds nine in ten"
    with pytest.raises(DataError, match=said) as refused:
        opened(tmp_path / "a", pairs(3, 17), max_length=24)
    enough = int(str(refused.value).partition("task.max_length=")[2].split()[0])
    assert account(opened(tmp_path / "a", pairs(3, 17), max_length=enough)).used["train"] == 20
    assert account(opened(tmp_path / "b", pairs(10, 10), max_length=24)).used["train"] == 10
    written(tmp_path / "b", pairs(0, 3), "test.jsonl")
    with pytest.raises(DataError, match=r"3 of 3 rows of test would be dropped, .*; task\.max_length="):
        completion.open(tmp_path / "b", TOKENIZER, seed=0, max_length=24)


def test_the_tenth_that_is_lost_may_be_any_length():
    assert nine_in_ten([5]) == 5 and nine_in_ten([1] * 9 + [99]) == 1 and nine_in_ten([1] * 8 + [7, 99]) == 7


def test_squad_names_what_it_does_not_read(tmp_path):
    answers = [{"text": "good", "answer_start": 3}]
    questions = [{"id": f"q{n}", "question": f"is {n} ?", "answers": answers} for n in range(20)]
    questions += [{"id": "none", "question": "?", "answers": [], "plausible_answers": [], "is_impossible": True}]
    paragraph = {"context": "film " * 30, "qas": questions, "url": "x"}
    (tmp_path / "train.json").write_text(json.dumps({"data": [{"title": "A_film", "paragraphs": [paragraph]}]}))
    found = account(squad.open(tmp_path, TOKENIZER, seed=0, max_length=40))
    assert found.ignored == ("paragraphs[].qas[].id", "paragraphs[].url")
    assert found.unused == ("1 questions marked is_impossible",)
    (warning,) = found.warnings
    assert "train 16 of 16 (100%)" in warning and "lose the beginning of the prompt: the title" in warning
    rows = [{"context": "a", "passage": "b", "question": "c", "answers": ["d"], "title": ""} for _ in range(5)]
    assert account(squad.open(written(tmp_path / "flat", rows), TOKENIZER, seed=0)).ignored == ("passage",)


def test_classification_names_fields_and_columns(tmp_path):
    (tmp_path / "boolq").mkdir()
    boolq.example(tmp_path / "boolq")
    with (tmp_path / "boolq" / "val.jsonl").open("a") as stream:
        stream.write('{"question": "a", "passage": "b", "label": true, "idx": 3}\n')
    asked = boolq.open(tmp_path / "boolq", TOKENIZER, seed=0)
    assert account(asked).ignored == account(rewarded(asked, f1, "f1", "")).ignored == ("idx",)
    sst2.example(tmp_path)
    (tmp_path / "dev.tsv").write_text("idx\tlabel\tsentence\n3\t1\tgood\n")
    task = sst2.open(tmp_path, TOKENIZER, seed=0, max_length=10)
    assert account(task).ignored == ("idx",) and account(rewarded(task, f1, "f1", "")).used["test"] == 1
    assert account(task).truncated["train"] == 1000 and "the beginning of the sentence" in account(task).warnings[0]
    encoder = sst2.open(tmp_path, tiny_encoders.tokenizer(), seed=0, kind="encoder", max_length=9)
    assert "the end of the text" in account(encoder).warnings[0]


def test_texts_beside_the_splits_are_named(tmp_path):
    for name in ("train.txt", "notes.md", "more/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("film number 3 .\n" * 2000)
    found = account(text.open(tmp_path, TOKENIZER, seed=0))
    assert found.unused == ("more/notes.md", "notes.md") and found.line.endswith("; not read: more/notes.md, notes.md")


def test_the_account_of_an_old_journal_lacks_what_it_did_not_say():
    old = Account.of({"task": "squad", "rows": {"test": 4, "train": 8}, "truncated": {"train": 8}, "max_length": 200})
    assert old.line == "rows: train 8 (8 truncated at 200 tokens), test 4"
    assert old.warnings == ("rows: train 8 of 8 (100%) are longer than 200 tokens and lose tokens",)
    assert Account.of({"task": "later"}).line == ""
