"""The divergence of predictions against its definition in float64, exact and with a bounded memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from forq.errors import ConfigError
from forq.tasks.objectives import divergence, losses
from forq.tasks.objectives.divergence import Reference
from forq.tokens.batches import Batch
from forq.tokens.model import LanguageModel

VOCABULARY, POSITIONS = 50, 12


class Table(nn.Module, LanguageModel):
    """A model whose logits are a table, given out in chunks."""

    def __init__(self, logits: torch.Tensor, chunk: int = 5) -> None:
        super().__init__()
        self.logits, self.chunk = logits, chunk
        self.config, self.device, self.training = None, torch.device("cpu"), False

    def takes_packed(self, part):
        return False

    def scored_logits(self, batch):
        yield from self.logits.split(self.chunk)

    def reader(self, prompts):
        raise NotImplementedError


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    base = 3 * torch.randn(POSITIONS, VOCABULARY, generator=draw)
    return base, base + 0.3 * torch.randn(POSITIONS, VOCABULARY, generator=draw)


def batch() -> Batch:
    places = torch.arange(POSITIONS)
    return Batch(places[None], torch.zeros(POSITIONS, dtype=torch.int64), places, places, (POSITIONS,))


def measured(base: torch.Tensor, tuned: torch.Tensor) -> float:
    reference = Reference(POSITIONS)
    losses.token_nll(reference.keeping(Table(base)), batch())
    losses.token_nll(reference.comparing(Table(tuned)), batch())
    return reference.mean


def wanted(base: torch.Tensor, tuned: torch.Tensor) -> float:
    p, q = (x.double().log_softmax(dim=1) for x in (base, tuned))
    return float((p.exp() * (p - q)).sum(dim=1).mean())


def test_the_whole_vocabulary_gives_the_definition(pair):
    assert measured(*pair) == pytest.approx(wanted(*pair), rel=1e-5)
    assert measured(pair[1], pair[0]) == pytest.approx(wanted(pair[1], pair[0]), rel=1e-5)


def test_the_same_predictions_have_no_divergence(pair):
    assert measured(pair[0], pair[0]) == 0.0
    assert measured(pair[0], pair[0] + 7) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("tokens", [1, 5, 20])
def test_a_bounded_memory_gives_a_lower_bound(pair, monkeypatch, tokens):
    monkeypatch.setattr(divergence, "KEPT_BYTES", 8 * POSITIONS * tokens)
    found = measured(*pair)
    assert 0 < found <= wanted(*pair) * (1 + 1e-6)
    # What merging loses, from the definition: the likeliest tokens apart, all others as one outcome.
    p, q = (x.double().softmax(dim=1) for x in pair)
    top = p.topk(tokens, dim=1).indices
    merged = [torch.cat([x.gather(1, top), 1 - x.gather(1, top).sum(1, keepdim=True)], dim=1) for x in (p, q)]
    assert found == pytest.approx(float((merged[0] * (merged[0] / merged[1]).log()).sum(1).mean()), rel=1e-4)


@pytest.mark.parametrize("tokens", [POSITIONS, VOCABULARY])
def test_a_masked_vocabulary_counts_nothing(pair, monkeypatch, tokens):
    monkeypatch.setattr(divergence, "KEPT_BYTES", 8 * POSITIONS * tokens)
    masked = tuple(logits.clone() for logits in pair)
    for logits in masked:
        logits[:, VOCABULARY - 10 :] = -torch.inf
    assert 0 < measured(*masked) <= wanted(*(logits[:, : VOCABULARY - 10] for logits in pair)) * (1 + 1e-6)


def test_predictions_that_are_no_numbers_have_no_divergence_to_pass_by(pair):
    broken = pair[1].clone()
    broken[3] = math.nan
    assert math.isnan(measured(pair[0], broken))
    gone = pair[1].clone()
    gone[3, 7] = -torch.inf
    assert measured(pair[0], gone) == math.inf


def test_listening_changes_no_loss(pair):
    reference = Reference(POSITIONS)
    heard = losses.token_nll(reference.keeping(Table(pair[0])), batch())
    assert torch.equal(heard, losses.token_nll(Table(pair[0]), batch()))


def test_other_rows_are_refused(pair):
    reference = Reference(POSITIONS)
    losses.token_nll(reference.keeping(Table(pair[0])), batch())
    with pytest.raises(ConfigError, match="compare the same rows"):
        losses.token_nll(reference.comparing(Table(pair[1], chunk=4)), batch())
    reference.comparing(Table(pair[1]))
    with pytest.raises(ConfigError, match="3 pieces"):
        _ = reference.mean
