"""SST-2: prompts and words in tokens, the draw of the splits, and rows that are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.nn.functional import log_softmax

from forq.errors import ConfigError, DataError
from forq.tasks import sst2
from forq.tasks.kinds.choice import Question, encode
from tests import tiny_lm

SMALL = {"train_rows": 30, "validation_rows": 10}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sst2.example(tmp_path_factory.mktemp("sst2"))


@pytest.mark.parametrize("vocabulary", [300, 400])
def test_prompt_and_words_are_mezos(data, vocabulary):
    tokenizer = tiny_lm.tokenizer(vocabulary=vocabulary)
    task = sst2.open(data, tokenizer, seed=0, **SMALL)
    row = task.rows["test"][1]
    assert tokenizer.decode(row.prompt) == "<s>film number 2001 is good . It was"
    assert [tokenizer.decode(option) for option in row.options] == [" terrible", " great"]
    assert row.label == 1 and task.rows["test"][0].label == 0
    assert (task.batch(0).part is None) is (vocabulary == 400)


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("vocabulary", [300, 400])
def test_the_loss_is_over_length_normalised_likelihoods(data, kind, vocabulary):
    model, tokenizer = tiny_lm.model(kind), tiny_lm.tokenizer(vocabulary=vocabulary)
    task = sst2.open(data, tokenizer, seed=0, batch_rows=4, test_rows=7, **SMALL)
    total, right = 0.0, 0
    for row in task.rows["test"]:
        scores = []
        for word in (" terrible", " great"):
            n = "good" if row.label else "bad"
            text = tokenizer.decode(row.prompt[1:]) + word
            assert n in text
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            with torch.no_grad():
                logits = log_softmax(model(input_ids=ids).logits[0].double(), dim=-1)
            answer = range(len(row.prompt), ids.shape[1])
            scores.append(sum(logits[i - 1, ids[0, i]] for i in answer) / len(answer))
        total -= float(log_softmax(torch.stack(scores), dim=0)[row.label])
        right += int(scores[row.label] > scores[1 - row.label])
    score = task.evaluate(model, "test")
    assert score.rows == 7 and score.main == "accuracy" and score.higher_is_better
    assert score.loss == pytest.approx(total / 7, abs=1e-5)
    assert score.metrics["accuracy"] == pytest.approx(right / 7)


def test_a_long_sentence_loses_its_beginning(data):
    task = sst2.open(data, tiny_lm.tokenizer(), seed=0, max_length=18, **SMALL)
    assert task.describe()["truncated"]["test"] == 100
    for row in task.rows["test"]:
        assert row.length == 18 and row.prompt[0] == 0
        assert tiny_lm.tokenizer().decode(row.prompt).endswith(" It was")
    assert sst2.open(data, tiny_lm.tokenizer(), seed=0, **SMALL).describe()["truncated"]["test"] == 0
    with pytest.raises(ConfigError, match="max_length must be 10 or more"):
        sst2.open(data, tiny_lm.tokenizer(), seed=0, max_length=9, **SMALL)


class Fives:
    """A tokenizer that cuts a text every five letters, across every seam."""

    def __call__(self, text, add_special_tokens=True, verbose=True):
        pieces = [text[i : i + 5] for i in range(0, len(text), 5)]
        return {"input_ids": [int.from_bytes(piece.encode(), "big") for piece in pieces]}


@pytest.mark.parametrize(
    ("prompt", "words", "shared"),
    [
        ("fine It was", (" great", " grim"), 2),  # "s gre" and "s gri" take the prompt's last letter along
        ("fine It was not", (" great", " grim"), 3),  # the seam holds
        ("fine It wa", (" fine one", " fine two"), 2),  # a beginning that words share counts in their length
        ("It was", (" goo", " goodly"), 1),  # one word begins the other
    ],
)
def test_words_are_tokenised_with_the_prompt(prompt, words, shared):
    row = encode(Question(prompt, 1), words, Fives(), (), 99)
    assert len(row.prompt) == shared and all(row.options)
    for option, word in zip(row.options, words, strict=True):
        assert [*row.prompt, *option] == Fives()(prompt + word)["input_ids"]


def test_the_draw_keeps_validation_when_train_grows(data):
    few = sst2.open(data, tiny_lm.tokenizer(), seed=0, train_rows=20, validation_rows=15)
    many = sst2.open(data, tiny_lm.tokenizer(), seed=0, train_rows=200, validation_rows=15)
    other = sst2.open(data, tiny_lm.tokenizer(), seed=1, train_rows=20, validation_rows=15)
    assert few.rows["validation"] == many.rows["validation"] != other.rows["validation"]
    assert few.rows["train"] == many.rows["train"][:20]
    assert few.rows["test"] == other.rows["test"] and len(few.rows["test"]) == 100
    with pytest.raises(ConfigError, match="has 2000 rows"):
        sst2.open(data, tiny_lm.tokenizer(), seed=0, train_rows=1991, validation_rows=10)
    with pytest.raises(ConfigError, match="has 2000 rows"):
        sst2.open(data, tiny_lm.tokenizer(), seed=0, train_rows=None, validation_rows=2000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.tsv, line 1: expected a header"),
        (b"label\tsentence\n", r"train\.tsv: a header and no rows"),
        (b"label\ttext\n1\tfine\n", r"line 1: .*found \['label', 'text'\]"),
        (b"sentence\tlabel\nfine\t1\nbad\t2\n", r"line 3: label must be 0 or 1, found '2'"),
        (b"sentence\tlabel\r\nfine\t1\r\nbad\t\r\n", r"line 3: label must be 0 or 1, found ''"),
        (b"sentence\tlabel\nfine\t1\nbad\n", r"line 3: expected 2 fields between tabs, found 1"),
        (b"sentence\tlabel\nfine\t1\n\nbad\t0\n", r"line 3: expected 2 fields"),
        (b"sentence\tlabel\nfine\t1\n  \t0\n", r"line 3: the sentence is empty"),
        (b"sentence\tlabel\nfine\t1\nb\xff\t0\n", r"line 3: not UTF-8 at byte 1"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, content, message):
    sst2.example(tmp_path)
    (tmp_path / "train.tsv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        sst2.open(tmp_path, tiny_lm.tokenizer(), seed=0)


def test_columns_come_in_any_order_and_quotes_are_letters(tmp_path):
    sst2.example(tmp_path)
    (tmp_path / "dev.tsv").write_bytes('\ufeffcontent\tlabel\r\n"it \'s " bad\t0\r\n'.encode())
    task = sst2.open(tmp_path, tiny_lm.tokenizer(), seed=0, **SMALL)
    assert tiny_lm.tokenizer().decode(task.rows["test"][0].prompt) == '<s>"it \'s " bad It was'
    (tmp_path / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"dev\.tsv: No such file"):
        sst2.open(tmp_path, tiny_lm.tokenizer(), seed=0, **SMALL)


def test_the_real_rows():
    if "FORQ_DATA" not in os.environ:
        pytest.skip("FORQ_DATA is not set: no real SST-2")
    root = Path(os.environ["FORQ_DATA"])
    if not ((root / "sst2").is_dir() and (root / "tinystories-656k").is_dir()):
        pytest.skip("FORQ_DATA holds no sst2 or no tinystories-656k")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = root / "tinystories-656k"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    task = sst2.open(root / "sst2", tokenizer, seed=0, train_rows=100, validation_rows=50)
    assert task.describe()["labels"]["test"] == [428, 444]
    score = task.evaluate(model, "test", limit=48)
    assert score.rows == 48 and 0.3 < score.loss < 3
