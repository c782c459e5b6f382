"""Rows in forwards of like length, token budgets and micro-batches: less padding, bounded forwards, the same loss."""

import itertools

import pytest
import torch

from forq.errors import ConfigError
from forq.tasks import completion, sst2, text
from forq.tokens.batches import _FORWARD, cut
from tests import tiny_encoders, tiny_lm


def cost(lengths, groups, most):
    padded = [len(rows) * max(lengths[row] for row in rows) for rows in groups]
    if most is not None and any(len(rows) > 1 and size > most for rows, size in zip(groups, padded, strict=True)):
        return float("inf")
    return sum(padded) + _FORWARD * len(groups)


def partitions(rows):
    if not rows:
        yield []
        return
    for count in range(len(rows)):
        for others in itertools.combinations(rows[1:], count):
            rest = [row for row in rows[1:] if row not in others]
            for tail in partitions(rest):
                yield [[rows[0], *others], *tail]


@pytest.mark.parametrize("most", [None, 300, 90])
@pytest.mark.parametrize("lengths", [(7, 7, 7, 7), (300, 20, 25, 310, 30, 5), (500, 1, 250, 2, 3), (60,), (90, 40, 40)])
def test_no_other_groups_cost_less(lengths, most):
    found = cut(lengths, most)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    best = min(cost(lengths, groups, most) for groups in partitions(list(range(len(lengths)))))
    assert cost(lengths, found, most) == best < float("inf")


def uneven(folder):
    rows = [
        f'{{"prompt": "film {n} was {"very " * (n * 7 % 90)}", "completion": " good {n % 3}"}}\n' for n in range(60)
    ]
    (folder / "rows.jsonl").write_text("".join(rows))
    return completion.open(folder / "rows.jsonl", tiny_lm.tokenizer(), seed=0, max_length=128, batch_rows=12)


def forwards(model, task, batch):
    """What a loss hands to the model: tokens of every forward, padding included."""
    seen = []
    hook = model.base_model.register_forward_pre_hook(
        lambda module, args, told: seen.append(told["input_ids"].numel()), with_kwargs=True
    )
    loss = task.loss(model, batch)
    hook.remove()
    return seen, loss


@pytest.mark.parametrize("kind", ["llama", "bloom"])  # one that packs options in a row, one that cannot
@pytest.mark.parametrize("name", ["rows", "choices"])
def test_micro_batches_bound_every_forward_and_change_no_loss(tmp_path, kind, name):
    if name == "rows":
        task = uneven(tmp_path)
    else:
        data = sst2.example(tmp_path)
        sizes = {"train_rows": 40, "validation_rows": 20}
        task = sst2.open(data, tiny_lm.tokenizer(vocabulary=280), seed=0, batch_rows=12, **sizes)
    model = tiny_lm.model(kind, attention="eager")
    longest = max(map(task.length, task.rows["train"]))
    bounded = task.budgeted(None, longest)
    assert bounded.digest != task.digest and bounded.describe()["micro_batch_tokens"] == longest
    for step in range(2):
        rows = [task.rows["train"][row] for row in range(12 * step, 12 * step + 12)]
        free, loss = forwards(model, task, task.pack(rows))
        small, again = forwards(model, bounded, bounded.pack(rows, longest))
        assert len(small) > len(free) and max(small) <= longest < max(free)
        assert again == pytest.approx(loss, abs=1e-6)


def test_rows_of_unlike_length_are_not_padded_to_the_longest(tmp_path):
    task, model = uneven(tmp_path), tiny_lm.model("llama")
    batch = task.batch(0)
    seen, _ = forwards(model, task, batch)
    assert len(seen) > 1 and sum(seen) < 0.9 * batch.input_ids.numel()
    rows = [task.pack([row]) for row in task.rows["test"]]
    alone = torch.tensor([task.loss(model, row) * len(row.target) for row in rows]).sum() / sum(
        len(row.target) for row in rows
    )
    assert task.loss(model, task.pack(task.rows["test"])) == pytest.approx(float(alone), abs=1e-5)


def test_an_encoder_takes_micro_batches_too(tmp_path):
    data = sst2.example(tmp_path)
    sizes = {"train_rows": 40, "validation_rows": 20, "batch_rows": 12}
    task = sst2.open(data, tiny_encoders.tokenizer(), kind="encoder", seed=0, **sizes)
    model, bounded = tiny_encoders.model(), task.budgeted(None, 40)
    rows = task.rows["train"][:12]
    free, loss = forwards(model, task, task.pack(rows))
    small, again = forwards(model, bounded, bounded.pack(rows, 40))
    assert len(free) == 1 < len(small) and again == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("budget", [1, 150, 600])
def test_a_token_budget_fills_batches_and_takes_every_row_once_an_epoch(tmp_path, budget):
    task = uneven(tmp_path).budgeted(budget, None)
    steps = [task._filled(step, budget) for step in range(70)]
    order = [row.tokens for rows in steps for row in rows]
    epoch = order[: len(task.rows["train"])]
    assert sorted(epoch) == sorted(row.tokens for row in task.rows["train"])
    for rows, following in itertools.pairwise(steps):
        tokens = sum(map(task.length, rows))
        assert len(rows) == 1 or tokens <= budget
        assert tokens + task.length(following[0]) > budget  # no room was left unused
    assert torch.equal(task.batch(3).input_ids, task.pack(steps[3]).input_ids)
    assert task.describe()["tokens_per_probe"] == budget
    again = uneven(tmp_path).budgeted(budget, None)  # any order of asking gives the same
    assert torch.equal(again.batch(17).input_ids, task.batch(17).input_ids)
    with pytest.raises(ConfigError, match="step must be 0 or more"):
        task.batch(-1)


def test_windows_of_equal_length_stay_one_forward(tmp_path):
    task = text.open(text.example(tmp_path), tiny_lm.tokenizer(), seed=0, max_length=32, batch_rows=8)
    model = tiny_lm.model("llama")
    assert len(forwards(model, task, task.batch(0))[0]) == 1
    small, _ = forwards(model, task.budgeted(None, 64), task.budgeted(None, 64).batch(0))
    assert small == [62] * 4 or small == [64] * 4


def test_budgets_below_a_token_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--micro-batch-tokens: expected 1 token or more, found 0"):
        uneven(tmp_path).budgeted(None, 0)
    with pytest.raises(ConfigError, match=r"--tokens-per-probe: expected 1 token or more, found -3"):
        uneven(tmp_path).budgeted(-3, None)
