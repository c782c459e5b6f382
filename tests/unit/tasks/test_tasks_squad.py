"""SQuAD: its layouts, the prompt, what is learned, and scores of greedy answers."""

import csv
import json

import pytest

from forq.errors import DataError
from forq.tasks import squad
from forq.tasks.kinds.completion import pack
from forq.tasks.objectives import rewards
from tests import tiny_lm

TOKENIZER = tiny_lm.tokenizer()


def opened(data, **options):
    return squad.open(data, TOKENIZER, seed=0, **options)


def official(count):
    questions = [
        {"id": f"q{n}", "question": f" what is {n} ?", "answers": [{"text": f"film {n}"}, {"text": f"the line {n}"}]}
        for n in range(count)
    ]
    questions.append({"id": "none", "question": "?", "answers": [], "is_impossible": True})
    return {"version": "1.1", "data": [{"title": "The_film", "paragraphs": [{"context": "film .", "qas": questions}]}]}


def test_the_files_as_they_are_published(tmp_path):
    (tmp_path / "train-v1.1.json").write_text(json.dumps(official(40)))
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(official(7)))
    task = opened(tmp_path, train_rows=30, test_rows=5)
    assert task.describe()["rows"] == {"train": 30, "validation": 4, "test": 5}
    row = task.rows["test"][0]
    number = json.loads(row.facts)["answer"].split()[1]
    said = TOKENIZER.decode(list(row.tokens), skip_special_tokens=True)
    assert said == f"Title: The film\nContext: film .\nQuestion: what is {number} ?\nAnswer: film {number}\n"
    assert TOKENIZER.decode([row.tokens[place] for place in row.scored]) == f" film {number}\n"
    assert json.loads(row.facts)["answers"] == [f"film {number}", f"the line {number}"]


def test_rows_without_a_title_leave_its_line_out(tmp_path):
    task = opened(squad.example(tmp_path))
    assert task.describe()["rows"] == {"train": 96, "validation": 12, "test": 12}
    assert TOKENIZER.decode(list(task.rows["train"][0].tokens), skip_special_tokens=True).startswith("Context: film")


def test_scores_are_those_of_the_greedy_answers(tmp_path):
    """One by one, through transformers' own decoding."""
    task, model = opened(squad.example(tmp_path), new_tokens=6, batch_rows=4), tiny_lm.model("llama")
    totals = {"f1": 0.0, "exact_match": 0.0}
    for row in task.rows["test"]:
        ids = pack([row]).input_ids[:, : row.scored[0]]
        made = model.generate(ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=6, do_sample=False)
        text = TOKENIZER.decode(made[0, ids.shape[1] :].tolist(), skip_special_tokens=True).split("\n")[0]
        for name in totals:
            totals[name] += getattr(rewards, name)("", text, json.loads(row.facts))
    score = task.evaluate(model, "test")
    assert score.main == "f1" and score.metrics == pytest.approx({name: x / 12 for name, x in totals.items()})
    assert score.loss > 0 and score.rows == 12


def test_an_answer_ends_with_its_line(tmp_path):
    task, model = opened(squad.example(tmp_path), new_tokens=12), tiny_lm.model("llama")
    newline = TOKENIZER("\n", add_special_tokens=False)["input_ids"][0]
    with_line = tiny_lm.model("llama")
    head = with_line.get_output_embeddings()
    hidden = with_line.base_model(pack(task.rows["test"][:1]).input_ids).last_hidden_state.detach()
    head.weight.data[newline] = 100 * hidden[0, -1]
    batch = next(task.batches("test"))
    texts = [answer.text for answer in task.answers(with_line, batch)]
    assert all("\n" not in text for text in texts)
    assert sum(map(len, texts)) < sum(len(answer.text) for answer in task.answers(model, batch))


def tabled(folder, answers, count=9):
    """A CSV file whose rows have the same cell of answers."""
    with (folder / "train.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["context", "question", "answers"])
        table.writeheader()
        table.writerows({"context": "film .", "question": f"film {n} ?", "answers": answers} for n in range(count))
    return folder / "train.csv"


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        ({"text": ["0 good"], "answer_start": [12]}, ["0 good"]),
        (["0 good", 'it\'s "bad"'], ["0 good", 'it\'s "bad"']),
        ([{"text": "0 good", "answer_start": 12}, {"text": "bad"}], ["0 good", "bad"]),
        (json.dumps({"text": ["0 good", "bad"], "answer_start": [1, None]}), ["0 good", "bad"]),
        ("{'text': array(['0 good'], dtype=object), 'answer_start': array([12], dtype=int32)}", ["0 good"]),
        ("array(['0 good',\n       'bad'], dtype=object)", ["0 good", "bad"]),
        ("0 good", ["0 good"]),
        ("[u'bad']", ["bad"]),
        *((text, [text]) for text in ("[0] good", "[0]", "[[0, 1], [2, 3]]", "{x | x > 0}", "[", "array 0")),
        ('["[0]"]', ["[0]"]),
    ],
)
def test_answers_in_a_table_are_read_and_not_learned_as_they_are_spelled(tmp_path, cell, answers):
    row = opened(tabled(tmp_path, cell)).rows["train"][0]
    assert json.loads(row.facts)["answers"] == answers
    assert TOKENIZER.decode([row.tokens[place] for place in row.scored]) == f" {answers[0]}\n"


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("['0 good' 'bad']", "texts without a comma between them"),
        ("['0 good'\n 'bad']", "texts without a comma between them"),
        ("{'text': ['0 good'", "looks like a list or mapping"),
        ("{'text': list(['0 good'])}", "neither JSON nor a Python literal: "),
        ("{'0 good', 'bad'}", "a set, which is neither"),
        ("['\\d']", "neither JSON nor a Python literal"),
        ("['\\ud83d']", "half of a surrogate pair"),
        ("['a', " + "[" * 3000 + "]" * 3001, "looks like a list or mapping"),
        ("array([1, 2])", "expected texts in 'answers'"),
        ("[b'bad']", "expected texts in 'answers'"),
        ('{"text": ["a"], "text": ["b"]}', "the key 'text' stands twice"),
        ("{'text': [], 'answer_start': []}", "expected texts in 'answers'"),
        ("[]", "expected texts in 'answers'"),
        ("array(['0 good', ..., 'bad'], dtype=object)", "expected texts in 'answers'"),
    ],
)
def test_answers_in_a_table_that_cannot_be_read_are_refused(tmp_path, cell, says):
    path = tabled(tmp_path, cell)
    with pytest.raises(DataError) as refused:
        opened(path)
    assert "train.csv, line " in str(refused.value) and says in str(refused.value)


def test_a_mark_of_impossible_questions_is_read_in_a_table_too(tmp_path):
    rows = "".join(f"film .,film {n} ?,0 good,{mark}\n" for n, mark in enumerate(["False", "false", "0", ""] * 3))
    (tmp_path / "train.csv").write_text(f"context,question,answer,is_impossible\n{rows}film .,?,,True\n")
    task = opened(tmp_path)
    assert sum(task.describe()["rows"].values()) == 12 and task.unused == ("1 questions marked is_impossible",)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "a", "answer": "b"}, "line 1: expected text in 'context' or 'passage', found only 'question'"),
        ({"context": "a", "question": 3, "answer": "b"}, "expected text in 'question' or 'query', found 3"),
        ({"context": "a", "question": "b", "answers": {"text": []}}, "expected texts in 'answers'"),
        ({"context": "a", "question": "b", "answers": ["", "c"]}, "expected texts in 'answers'"),
        ({"is_impossible": "perhaps"}, "expected true or false in 'is_impossible', found \"perhaps\""),
        ({"paragraphs": [{"context": "a"}]}, "expected an article with paragraphs"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path, row, says):
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as refused:
        opened(tmp_path)
    assert says in str(refused.value)
