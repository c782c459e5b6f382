"""Losses against plain full-vocabulary logits, and packed options against separate forwards."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import log_softmax

from forq.errors import ConfigError
from forq.tasks.kinds.choice import Row, pack
from forq.tasks.objectives import losses
from forq.tokens import batches
from forq.tokens.batches import Batch
from forq.tokens.pretrained import language_model
from tests import tiny_lm

KINDS = ["llama", "opt", "mistral", "qwen2", "qwen3"]
ROWS = [
    Row(prompt=(0, 17, 33, 5), options=((7, 8, 9), (7, 11)), label=1),
    Row(prompt=(0, 2, 90, 41, 30, 6, 77), options=((3,), (12, 13, 14, 15)), label=0),
    Row(prompt=(0, 5), options=((7, 8, 9), (4, 4)), label=0),
]


def separate(model, row: Row, option: int) -> torch.Tensor:
    """Log-likelihoods of one option's tokens from a forward of its own, with full logits in float64."""
    ids = torch.tensor([[*row.prompt, *row.options[option]]])
    with torch.no_grad():
        logits = log_softmax(model(input_ids=ids).logits[0].double(), dim=-1)
    start = len(row.prompt)
    return torch.stack([logits[i - 1, ids[0, i]] for i in range(start, ids.shape[1])])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_options_equal_separate_forwards(kind, attention):
    model = tiny_lm.model(kind, attention)
    batch = pack(ROWS)
    assert batch.part is not None and language_model(model).takes_packed(batch.part)
    want = [separate(model, row, option) for row in ROWS for option in range(2)]
    for found in (batch, batches.unpacked(batch)):
        with torch.no_grad():
            nll = losses.token_nll(model, found)
            torch.testing.assert_close(-nll.double(), torch.cat(want), atol=1e-5, rtol=1e-5)
            likely = losses.log_likelihoods(model, found)
    torch.testing.assert_close(likely.double().flatten(), torch.stack([w.mean() for w in want]), atol=1e-5, rtol=1e-5)


def test_a_packed_row_runs_the_prompt_once():
    seen = []
    model = tiny_lm.model("llama")
    model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with torch.no_grad():
        losses.token_nll(model, pack(ROWS))
    assert seen == [(3, max(row.length for row in ROWS))]


@pytest.mark.parametrize(("window", "packs"), [(4, False), (9, False), (10, True)])
def test_a_window_shorter_than_an_answer_with_its_prompt_gets_a_row_per_option(window, packs):
    """The longest has 7 + 4 tokens, the last of which predicts nothing and is not in the row."""
    sliding = tiny_lm.model("mistral", sliding_window=window)
    part = pack(ROWS).part
    assert part is not None and language_model(sliding).takes_packed(part) == packs
    want = torch.cat([separate(sliding, row, option) for row in ROWS for option in range(2)])
    with torch.no_grad():
        torch.testing.assert_close(-losses.token_nll(sliding, pack(ROWS)).double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_words_of_one_token_need_no_mask(kind):
    model = tiny_lm.model(kind)
    rows = [Row(prompt=(0, 17, 33, 5), options=((7,), (8,)), label=1), Row((0, 3), ((7,), (8,)), 0)]
    batch = pack(rows)
    assert batch.part is None and batch.input_ids.shape == (2, 4)
    want = torch.stack([separate(model, row, option).sum() for row in rows for option in range(2)])
    found = losses.log_likelihoods(model, batch)
    torch.testing.assert_close(found.double(), want.view(2, 2), atol=1e-5, rtol=1e-5)


def text_batch() -> Batch:
    ids = torch.randint(2, 390, (3, 20), generator=torch.Generator().manual_seed(1))
    return Batch(
        input_ids=ids,
        row=torch.arange(3).repeat_interleave(19),
        column=torch.arange(19).repeat(3),
        target=ids[:, 1:].reshape(-1),
        lengths=(19,) * 3,
    )


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_mean_equals_plain_logits_and_so_does_its_gradient(kind):
    model, batch = tiny_lm.model(kind), text_batch()
    plain = model(input_ids=batch.input_ids, labels=batch.input_ids).loss
    weight = model.get_output_embeddings().weight
    want = torch.autograd.grad(plain, weight)[0]
    found = losses.mean_nll(model, batch)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found, weight)[0], want, atol=1e-5, rtol=1e-4)


def test_the_head_sees_only_answers_a_chunk_at_a_time(monkeypatch):
    model, batch, seen = tiny_lm.model("llama"), text_batch(), []
    whole = losses.token_nll(model, batch)
    model.get_output_embeddings().register_forward_hook(lambda _, args, out: seen.append(out.numel() * 4))
    monkeypatch.setattr("forq.tokens.pretrained.CHUNK_BYTES", 10 * 4 * 400)
    torch.testing.assert_close(losses.token_nll(model, batch), whole, atol=1e-6, rtol=1e-6)
    assert max(seen) <= 10 * 4 * 400 and sum(seen) == 57 * 4 * 400


def test_half_precision_models_are_scored_in_fp32():
    model = tiny_lm.model("llama").bfloat16()
    with torch.inference_mode():
        for batch in (text_batch(), pack(ROWS)):
            nll = losses.token_nll(model, batch)
            assert nll.dtype == torch.float32 and bool(nll.isfinite().all())
            assert not torch.equal(nll, nll.bfloat16().float())


def test_what_would_score_wrongly_is_refused():
    batch = text_batch()
    with pytest.raises(ConfigError, match="training mode"):
        losses.mean_nll(tiny_lm.model("opt").train(), batch)
    with pytest.raises(ConfigError, match="16 positions: lower max_length"):
        losses.mean_nll(tiny_lm.model("opt", max_position_embeddings=16), batch)
