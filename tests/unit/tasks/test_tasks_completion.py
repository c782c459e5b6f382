"""Data of one's own: what is scored, how rows are cut and split, and every way a file can be wrong."""

import copy
import json
import sys
from dataclasses import replace

import pytest
import torch

from forq.errors import ConfigError, DataError
from forq.tasks import completion
from forq.tasks.kinds.completion import pack
from forq.tasks.objectives import rewards
from forq.tasks.objectives.losses import mean_nll
from forq.tasks.objectives.rewarded import rewarded
from tests import tiny_lm

TOKENIZER = tiny_lm.tokenizer()
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} .\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def written(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def pairs(count):
    return [{"prompt": f"film number {n} was", "completion": f" good {n % 3}"} for n in range(count)]


def chatting():
    """A tokenizer with a chat template."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def opened(data, tokenizer=TOKENIZER, **options):
    return completion.open(data, tokenizer, seed=0, **options)


def test_only_the_completion_is_scored_and_its_loss_is_that_of_its_tokens(tmp_path):
    task = opened(written(tmp_path, pairs(40)), end=False)
    row = task.rows["train"][0]
    said = TOKENIZER.decode(list(row.tokens[row.scored[0] :])).strip()
    assert said.startswith("good") and row.scored == tuple(range(row.scored[0], len(row.tokens)))
    model = tiny_lm.model("llama").eval()
    with torch.no_grad():
        logits = model(torch.tensor([row.tokens])).logits[0].log_softmax(-1)
        by_hand = -sum(logits[place - 1, row.tokens[place]] for place in row.scored) / len(row.scored)
        assert float(mean_nll(model, pack([row]))) == pytest.approx(float(by_hand), rel=1e-5)
        each = [(float(mean_nll(model, pack([one]))), len(one.scored)) for one in task.rows["train"][:7]]
        whole = float(mean_nll(model, pack(task.rows["train"][:7])))
    mean = sum(loss * count for loss, count in each) / sum(count for _, count in each)
    assert whole == pytest.approx(mean, rel=1e-5), "padding or weights are wrong"


def test_splits_are_drawn_once_and_files_of_their_own_are_kept(tmp_path):
    one = opened(written(tmp_path, pairs(50)))
    assert one.describe()["rows"] == {"train": 40, "validation": 5, "test": 5}
    assert not set(one.rows["train"]) & set(one.rows["test"]) and opened(tmp_path / "rows.jsonl").digest == one.digest
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train.jsonl", 20), ("dev.jsonl", 4), ("test.jsonl", 3)):
        written(folder, pairs(count), name)
    assert opened(folder).describe()["rows"] == {"train": 20, "validation": 4, "test": 3}


def test_a_long_prompt_loses_its_beginning_and_a_long_completion_is_dropped(tmp_path):
    rows = [*pairs(30), {"prompt": "film " * 60, "completion": " good"}, {"prompt": "a", "completion": " film" * 60}]
    task = opened(written(tmp_path, rows), max_length=24)
    said = task.describe()
    assert sum(said["truncated"].values()) == 1 and sum(said["dropped"].values()) == 1
    assert all(len(row.tokens) <= 24 for rows in task.rows.values() for row in rows)
    with pytest.raises(DataError, match=r"7 of 7 rows of train would be dropped, .*; task\.max_length=\d+ holds"):
        opened(written(tmp_path, [{"prompt": "a", "completion": " film" * 60}] * 9), max_length=8)


def test_csv_with_columns_of_other_names(tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text('question,answer\n"a film, was",good\n' + "film,bad\n" * 8)
    task = opened(path, prompt_field="question", completion_field="answer")
    assert sum(task.describe()["rows"].values()) == 9


def tokens(task):
    """The tokens of all rows and which are scored, in whichever split they are."""
    return {(row.tokens, row.scored) for rows in task.rows.values() for row in rows}


CHAT = [{"role": "user", "content": "number 2"}, {"role": "assistant", "content": "bad"}]


@pytest.mark.parametrize("other", [{"messages": CHAT}, {"text": "film film"}])
def test_the_fields_that_the_user_names_are_read_whatever_else_a_row_has(tmp_path, other):
    named = {"prompt_field": "question", "completion_field": "answer"}
    rows = [{"question": f"film {n}", "answer": " good"} for n in range(9)]
    alone = opened(written(tmp_path, rows), chatting(), **named)
    task = opened(written(tmp_path, [{**row, **other} for row in rows]), chatting(), **named)
    assert tokens(task) == tokens(alone)
    assert task.describe()["ignored"] == list(other)
    plain = [{"prompt": row["question"], "answer": row["answer"], **other} for row in rows]
    half = opened(written(tmp_path, plain), chatting(), completion_field="answer")
    assert tokens(half) == tokens(alone)


@pytest.mark.parametrize("other", [{"messages": CHAT}, {"text": "film film"}, {}])
def test_a_named_field_that_is_missing_is_refused_with_the_nearest(tmp_path, other):
    data = written(tmp_path, [{"question": "film", "answer": " good", **other}] * 9)
    says = r"line \d: expected a field 'anwser' \(did you mean 'answer'\?\), found 'question'.*task\.completion_field"
    with pytest.raises(DataError, match=says):
        opened(data, chatting(), prompt_field="question", completion_field="anwser")
    with pytest.raises(DataError, match=r"line \d: expected a field 'prompt', found .*task\.prompt_field"):
        opened(data, chatting(), completion_field="answer")


def test_of_a_conversation_the_assistant_is_learned(tmp_path):
    tokenizer = copy.deepcopy(TOKENIZER)  # all tests share one
    turns = [("user", "film number 1"), ("assistant", "good"), ("user", "number 2"), ("assistant", "was bad")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]}] * 5
    with pytest.raises(ConfigError, match="no chat template"):
        opened(written(tmp_path, rows), tokenizer)
    tokenizer.chat_template = TEMPLATE
    row = opened(tmp_path / "rows.jsonl", tokenizer, end=False).rows["train"][0]
    learned = tokenizer.decode([row.tokens[place] for place in row.scored])
    assert "good" in learned and "bad" in learned and "film" not in learned and "number" not in learned


def test_a_template_of_ones_own_is_the_tokenizers(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "number 2"}, {"role": "assistant", "content": f"was {n}"}]}
        for n in range(5)
    ]
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    data = written(tmp_path, rows)
    mine = opened(data, template=str(tmp_path / "chat.jinja"))
    assert mine.rows == opened(data, chatting()).rows
    with pytest.raises(ConfigError, match=r"task\.template: expected a file"):
        opened(data, template=str(tmp_path / "nowhere.jinja"))


def test_of_several_turns_the_last_is_asked_for(tmp_path):
    turns = [("user", "film 1"), ("assistant", "good"), ("user", "film 2"), ("assistant", "bad")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]}] * 5
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    task = opened(written(tmp_path, rows), template=str(tmp_path / "chat.jinja"))
    (answer,) = task.answers(tiny_lm.model("llama"), pack(task.rows["test"][:1]))
    assert answer.prompt.endswith("<user> film 2 .\n<assistant>") and "good" in answer.prompt
    assert answer.row["answer"].strip() == "bad ."


SPELLINGS = [
    ["good film", "bad"],
    {"text": ["good film", "bad"], "answer_start": [1, 2]},
    [{"text": "good film"}, {"text": "bad"}],
]


@pytest.mark.parametrize("measure", [rewards.f1, rewards.exact_match])
@pytest.mark.parametrize("answers", ["good film", {"text": "good film"}, *SPELLINGS])
def test_a_right_answer_has_the_whole_reward_however_answers_are_spelled(tmp_path, answers, measure):
    rows = [{"prompt": f"film {n} was", "completion": " good film", "answers": answers} for n in range(9)]
    plain = opened(written(tmp_path, rows), end=False)
    task = rewarded(plain, measure, "f1", "source")
    (answer,) = task.inner.answers(tiny_lm.model("llama"), pack(task.inner.rows["test"][:1]))
    assert measure(answer.prompt, answer.row["answer"], answer.row) == 1.0
    assert measure(answer.prompt, "film", answer.row) < 1.0
    # Only rows that were read wrongly have another digest.
    assert (task.digest == replace(task, inner=plain).digest) is (answers == SPELLINGS[0])


def test_a_reward_of_the_users_gets_the_row_as_it_is_and_answers_of_another_kind_do_not_count(tmp_path):
    rows = [{"prompt": f"film {n}", "completion": " good", "answers": "good"} for n in range(9)]
    task = opened(written(tmp_path, rows), end=False)
    assert rewarded(task, lambda prompt, text, row: 1.0, "mine", "").inner is task
    assert rewarded(task, rewards.accuracy, "accuracy", "").inner is task
    for other in (None, 7, "", {"A": "bad", "B": "good"}, {"text": []}):
        data = written(tmp_path, [{**row, "answers": other} for row in rows])
        plain = opened(data, end=False)
        inner = rewarded(plain, rewards.f1, "f1", "").inner
        assert other or inner is plain
        (answer,) = inner.answers(tiny_lm.model("llama"), pack(inner.rows["test"][:1]))
        assert rewards.f1(answer.prompt, "good", answer.row) == 1.0


def test_an_array_and_a_byte_order_mark_are_read(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(pairs(20), indent=1), encoding="utf-8-sig")
    assert opened(tmp_path / "rows.json").describe()["rows"]["train"] == 16
    written(tmp_path, pairs(20), "lines.json")
    assert opened(tmp_path / "lines.json").rows == opened(written(tmp_path, pairs(20), "lines.jsonl")).rows
    (tmp_path / "bad.json").write_text('[{"prompt": "a"},')
    with pytest.raises(DataError, match=r"bad\.json: not JSON"):
        opened(tmp_path / "bad.json")


def test_a_data_set_of_the_datasets_library(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = datasets.Dataset.from_list(pairs(20))
    found.save_to_disk(str(tmp_path / "set"))
    assert opened(tmp_path / "set").describe()["rows"] == {"train": 16, "validation": 2, "test": 2}
    (tmp_path / "hub").mkdir()
    found.to_parquet(tmp_path / "hub" / "train.parquet")
    found.to_parquet(tmp_path / "hub" / "test.parquet")
    assert opened(f"hf:{tmp_path / 'hub'}").describe()["rows"] == {"train": 18, "validation": 2, "test": 20}


def test_no_code_of_a_data_set_is_run(tmp_path):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(DataError, match="the datasets library cannot load it"):
        opened(f"hf:{tmp_path / 'set'}")
    assert datasets and not (tmp_path / "ran").exists()


def test_without_the_datasets_library_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'forq\[datasets\]'"):
        opened("hf:someone/something")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "found no rows, the file is empty"),
        ("{\n", "line 1: not JSON"),
        ("[1]\n", "expected an object"),
        ('{"prompt": "a"}\n', "expected 'prompt' and 'completion'"),
        ('{"prompt": "a", "completion": " "}\n', "the completion is empty"),
        ('{"prompt": "a", "completion": 3}\n', "expected text in 'completion', found int"),
        ('{"text": ""}\n', "the text is empty"),
        ('{"messages": "a"}\n', "a list of role and content"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', "turn of the assistant"),
        ('{"prompt": "a", "completion": "b"}\n', "expected three rows or more"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path, content, says):
    path = tmp_path / "rows.jsonl"
    path.write_text(content if says == "expected three rows or more" else 5 * content)
    with pytest.raises(DataError) as refused:
        opened(path, chatting())
    assert says in str(refused.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="expected a file of"):
        opened(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no such file"):
        opened(tmp_path / "nothing")
    (tmp_path / "latin.csv").write_bytes(b"prompt,completion\n\xe4,b\n")
    with pytest.raises(DataError, match=r"line 2: not UTF-8 at byte 0 of the line \(byte 18 of the file\)"):
        opened(tmp_path / "latin.csv")
    (tmp_path / "short.csv").write_text("prompt,completion\na\n")
    with pytest.raises(DataError, match="line 2: expected 2 fields"):
        opened(tmp_path / "short.csv")
