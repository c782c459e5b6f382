"""Blocks before all that moves run once for a step, and change no bit."""

from __future__ import annotations

import pytest
import torch

from forq.models.blocks import within
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.prefix import Prefix, prefix_of
from forq.runs import config as configs
from forq.runs import oracle_choice
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from forq.runs.run import Run

BYTES = ("journal.jsonl", "checkpoint/model.safetensors")


def runs_of_first_block(model) -> list[int]:
    """Grows by one at every run of the first block's attention."""
    seen: list[int] = []
    model.base_model.layers[0].self_attn.register_forward_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize("recipe", ["qzo", "qzo-shared", "zoqo", "mezo"])
def test_a_run_has_the_same_bytes_with_fewer_runs_of_the_first_block(base, text, tmp_path, recipe, monkeypatch):
    options = {"max_length": 32, "batch_rows": 4, "validation_rows": 8, "test_rows": 8}
    task = TaskConfig(name="text", data=str(text), options=options)
    given = ["blocks=1-", *(["move=scales"] if recipe == "mezo" else [])]
    config = configs.complete(recipe, given, checkpoint=str(base), task=task, steps=3, eval_every=3)
    counts = {}
    for name in ("once", "anew"):
        if name == "anew":
            monkeypatch.setattr(oracle_choice, "prefix_of", lambda model, leaves: None)
        model = load(base)
        seen = runs_of_first_block(model)
        run = Run.begin(tmp_path / name, config, model, open_task(task, model, config.seed))
        for _ in run.events():
            pass
        run.finish()
        counts[name] = len(seen)
        assert not any("forward" in vars(block) for block in model.base_model.layers)
    assert all((tmp_path / "once" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes() for name in BYTES)
    assert counts["once"] < counts["anew"]


def test_other_inputs_and_other_batches_are_computed(base):
    model = load(base)
    prefix = prefix_of(model, within(trainable(model, "scales"), "1"))
    assert prefix is not None
    seen, first, other = runs_of_first_block(model), torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 4]])

    def logits(batch: object, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), prefix.once_for(batch):
            return model.base_model(input_ids=ids, use_cache=False).last_hidden_state

    step, wanted = object(), [model.base_model(input_ids=ids, use_cache=False) for ids in (first, other)]
    seen.clear()
    found = [logits(step, ids) for ids in (first, other, first, other)]
    assert len(seen) == 2
    for place, states in enumerate(found):
        assert torch.equal(states, wanted[place % 2].last_hidden_state)
    logits(object(), first)
    assert len(seen) == 3


def test_generation_is_computed_anew_and_what_is_kept_cannot_be_changed(base):
    model = load(base)
    prefix = prefix_of(model, within(trainable(model, "scales"), "1"))
    assert isinstance(prefix, Prefix)
    seen, ids, step = runs_of_first_block(model), torch.tensor([[5, 6]]), object()
    kept = []
    model.base_model.layers[0].register_forward_hook(lambda block, args, out: kept.append(out))
    with torch.no_grad(), prefix.once_for(step):
        for _ in range(2):
            model.base_model(input_ids=ids, use_cache=True)
        assert len(seen) == 2
        wanted = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        kept[-1].mul_(2.0)
        again = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    assert len(seen) == 3 and torch.equal(again, wanted)


def test_no_prefix_where_the_first_block_moves_or_something_stands_outside(base):
    model = load(base)
    assert prefix_of(model, trainable(model, "scales")) is None
    assert prefix_of(model, within(trainable(model, "norms"), "all")) is None  # the last norm is in no block
    later = within(trainable(model, "scales"), "1")
    assert prefix_of(model.train(), later) is None
    assert prefix_of(torch.nn.Linear(2, 2), later) is None
