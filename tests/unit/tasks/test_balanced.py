"""Balanced batches: as many rows of each class, every row of a class once per its epoch; off, the batches of before."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forq.errors import ConfigError
from forq.plugins import registry
from forq.tasks import account
from forq.tasks.rows.order import balanced_row_at, of_each_class, row_at
from forq.tokens.model import Kind
from tests import tiny_encoders

SIZES = {"train_rows": 40, "validation_rows": 10}


class Letters:
    """A tokenizer whose tokens are letters."""

    def __call__(self, text: str, add_special_tokens: bool = True, verbose: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def opened(folder: Path, name: str, kind: Kind = "causal", by: str = "auto", **options: Any) -> Any:
    module = registry.get("tasks", name)
    data = folder / name
    if not data.exists():
        data.mkdir()
        module.example(data)
    tokenizer = Letters() if kind == "causal" else tiny_encoders.tokenizer()
    return module.open(data, tokenizer, kind=kind, by=by, **{"seed": 3, **SIZES, **options})


def rows(batch: Any) -> Any:
    return batch.input_ids.tolist()


# Computed by the last forq without the option: digest, and digest of batches 0, 6, 1 and one of 400 tokens.
BEFORE = [
    ("sst2", "causal", "auto", "f9e93be18113f244f820f6f72ca4d1c3", "e2d836bbca31ea064c76463abfb4cf3d"),
    ("rte", "causal", "auto", "4aa1facbedc4b4576d22f151faab7a26", "61664d5e224ccfbfa4c8121978a8ac88"),
    ("cb", "causal", "auto", "ba79a682bd38a653a53cddc28fa8ed9f", "53f0d89c034d19470ab767e1ba971387"),
    ("boolq", "causal", "auto", "b53a350ac167147374b3993972bf5714", "876b57a32b2677340112e90a7550ea15"),
    ("sst2", "masked", "mask", "3c60c49ce96e551dcf0725e9d51bdc19", "5709cc50484b459cba06bb9c1db7c20b"),
    ("cb", "masked", "similarity", "92145c10ab141fcf531c307b5341caa3", "5b7da0a0c656c1c835541f3642603a4f"),
]


@pytest.mark.parametrize(("name", "kind", "by", "digest", "batches"), BEFORE)
def test_off_digest_and_batches_are_those_of_before(tmp_path, name, kind, by, digest, batches):
    task = opened(tmp_path, name, kind, by, batch_rows=7, balanced=False)
    assert task.digest.startswith(digest)
    ids = [rows(task.batch(step)) for step in (0, 6, 1)] + [rows(task.budgeted(400, None).batch(3))]
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest().startswith(batches)
    assert task.describe()["balanced"] is False and "each class" not in account(task).line
    on = opened(tmp_path, name, kind, by, batch_rows=7)
    assert on.digest != task.digest and on.rows == task.rows and rows(on.batch(0)) != rows(task.batch(0))
    assert on.describe()["balanced"] is True


@pytest.mark.parametrize("kind", ["causal", "masked"])
@pytest.mark.parametrize(("name", "classes"), [("sst2", 2), ("cb", 3)])
@pytest.mark.parametrize("batch_rows", [1, 2, 5, 7, 16])
def test_counts_differ_by_at_most_one_in_every_batch(tmp_path, name, classes, kind, batch_rows):
    task = opened(tmp_path, name, kind, batch_rows=batch_rows)
    total = Counter(dict.fromkeys(range(classes), 0))
    for step in range(30):
        labels = task.batch(step).labels.tolist()
        found = Counter({label: labels.count(label) for label in range(classes)})
        assert len(labels) == batch_rows and max(found.values()) - min(found.values()) <= 1
        total.update(found)
        assert max(total.values()) - min(total.values()) <= 1, "nor do they drift apart"


def test_a_batch_is_a_function_of_digest_seed_and_step(tmp_path):
    one, other = opened(tmp_path, "cb", batch_rows=5), opened(tmp_path, "cb", batch_rows=5)
    steps = [9, 0, 100_000, 3, 9]
    found = {step: rows(one.batch(step)) for step in steps}
    assert {step: rows(other.batch(step)) for step in reversed(steps)} == found
    assert rows(opened(tmp_path, "cb", batch_rows=5, seed=4).batch(0)) != found[0]
    with pytest.raises(ConfigError, match="step must be 0 or more"):
        one.batch(-1)


CLASSES = of_each_class([0, 2, 2, 0, 2, 0, 0, 4, 0, 0, 2])


def test_a_class_without_a_row_has_no_turn():
    assert CLASSES == ((0, 3, 5, 6, 8, 9), (1, 2, 4, 10), (7,))


@pytest.mark.parametrize("number", range(3))
def test_every_row_of_a_class_is_used_once_per_its_epoch(number):
    own, mine = CLASSES[number], {"seed": 5, "digest": "d"}
    sequence = [balanced_row_at(3 * turn + number, classes=CLASSES, **mine) for turn in range(6 * len(own))]
    epochs = [sequence[start : start + len(own)] for start in range(0, len(sequence), len(own))]
    assert all(sorted(epoch) == list(own) for epoch in epochs)
    assert len(own) == 1 or len({tuple(epoch) for epoch in epochs}) > 1, "another order in another epoch"
    places = [row_at(turn, rows=len(own), seed=5, digest=f"d class {number}") for turn in range(len(sequence))]
    assert sequence == [own[place] for place in places]


def test_classes_of_one_size_have_orders_of_their_own():
    classes = of_each_class([n % 2 for n in range(40)])
    sequence = [balanced_row_at(place, classes=classes, seed=0, digest="d") for place in range(40)]
    assert [row // 2 for row in sequence[::2]] != [row // 2 for row in sequence[1::2]]


def test_a_rare_class_is_repeated(tmp_path):
    lines = ["label\tsentence", *(f"{int(n % 10 == 0)}\tfilm number {n} is it ." for n in range(200))]
    (tmp_path / "sst2").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "sst2" / name).write_text("\n".join([*lines, ""]))
    task = opened(tmp_path, "sst2", batch_rows=8, train_rows=100)
    often, rare = task.describe()["labels"]["train"]
    assert 1 < rare < 20 < often
    shown = [tuple(row) for step in range(often // 4) for row in rows(task.batch(step))]
    times = Counter(shown)
    assert set(times.values()) >= {1} and sum(count > 1 for count in times.values()) == rare


@pytest.mark.parametrize(("name", "classes"), [("sst2", 2), ("cb", 3)])
def test_a_budget_of_tokens_takes_the_same_sequence(tmp_path, name, classes):
    task = opened(tmp_path, name, batch_rows=1, max_length=256)
    budgeted = task.budgeted(400, None)
    batches = [budgeted.batch(step) for step in range(25)]
    labels = [label for batch in batches for label in batch.labels.tolist()]
    assert labels == [place % classes for place in range(len(labels))]
    assert {len(batch.labels) for batch in batches} != {1} and budgeted.digest != task.digest
    for batch in batches:
        found = Counter(dict.fromkeys(range(classes), 0))
        found.update(batch.labels.tolist())
        assert max(found.values()) - min(found.values()) <= 1
    again = task.budgeted(400, None)
    assert rows(again.batch(17)) == rows(batches[17])
    per_class = [label_rows(batches, label) for label in range(classes)]
    for seen, own in zip(per_class, budgeted.by_class, strict=True):
        assert len(seen) >= len(own) and len(set(seen[: len(own)])) == len(own)


def label_rows(batches: list[Any], label: int) -> list[tuple[int, ...]]:
    """The rows of a class in the order of the batches, without their padding."""
    return [
        tuple(token for token in row if token)
        for batch in batches
        for row, own in zip(rows(batch), batch.labels.tolist(), strict=True)
        if own == label
    ]


def test_what_people_read_says_so(tmp_path):
    said = account(opened(tmp_path, "sst2"))
    assert said.line == "rows: train 40, validation 10, test 100; batches with as many rows of each class"
    assert said.only("test").line == "rows: test 100", "of no use where nothing is trained"
