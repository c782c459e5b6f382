"""The words' prior: that of an empty prompt, unless training rows contradict it clearly."""

from __future__ import annotations

import pytest
import torch

from forq.tasks.kinds.prior import CLEARLY, prior_of


def answers(rows: int, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-likelihoods that lean to the right option, all of them shifted towards the first; and the right options."""
    labels = torch.arange(rows) % 2
    draw = torch.Generator().manual_seed(0)
    found = torch.randn(rows, 2, generator=draw) * 0.3
    found[torch.arange(rows), labels] += 1.0
    found[:, 0] += shift
    return found - 5.0, labels


def test_an_empty_prompt_that_rows_confirm_is_taken() -> None:
    found, labels = answers(64, shift=2.0)
    for empty in (torch.tensor([-3.0, -5.0]), torch.tensor([-3.2, -4.9])):
        assert torch.equal(prior_of(empty, found, labels), empty.double().log_softmax(dim=0))
    assert torch.equal(prior_of(empty, found[:0], labels[:0]), empty.double().log_softmax(dim=0))


def test_an_empty_prompt_that_rows_contradict_gives_way_to_their_mean_answer() -> None:
    found, labels = answers(64, shift=2.0)
    wrong = prior_of(torch.tensor([-9.0, -1.0]), found, labels)
    assert wrong == pytest.approx(found.double().softmax(dim=1).mean(dim=0).log())
    right = (found - wrong).argmax(dim=1) == labels
    assert right.double().mean() > 0.9 > (found.argmax(dim=1) == labels).double().mean()


def test_every_class_counts_alike() -> None:
    found, labels = answers(64, shift=0.0)
    few = torch.cat([found, found[labels == 1].repeat(9, 1)]), torch.cat([labels, labels[labels == 1].repeat(9)])
    wrong = torch.tensor([-9.0, -1.0])
    assert prior_of(wrong, *few) == pytest.approx(prior_of(wrong, found, labels))


def test_a_small_difference_is_no_contradiction() -> None:
    found, labels = answers(64, shift=0.0)
    mean = prior_of(torch.tensor([9.0, -9.0]), found, labels)

    def loss(prior: torch.Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(found.double() - prior, labels))

    near = next(torch.tensor([step / 100, 0.0]) for step in range(500)
                if loss(torch.tensor([step / 100, 0.0]).log_softmax(0)) > loss(mean) + CLEARLY - 0.01)  # fmt: skip
    assert torch.equal(prior_of(near, found, labels), near.double().log_softmax(dim=0))
    far = near + torch.tensor([0.2, 0.0])
    assert prior_of(far, found, labels) == pytest.approx(mean)
