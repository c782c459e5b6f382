"""What a model predicts on a batch, as the curvature of a loss needs it: the Fisher matrix, or Gauss–Newton's.

The curvature along two displacements is the weighted sum of the products of what they change in ``outputs``. Of a
classification ``outputs`` are the log-probabilities of all classes, weighted by the probabilities at the point itself;
that is the Fisher matrix exactly. Of a language model they are the log-probabilities of one token for each position,
which is drawn from the model at the point itself: the mean over the draws is the Fisher matrix. Tokens of the data
would give the empirical Fisher matrix, which is another one (Kunstner et al. 2019, arXiv 1905.12558). Of a squared
error they are the model's outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Uniform = Callable[[int], Tensor]
"""As many numbers, uniform on (0, 1), as asked for: float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a model predicts on a batch.

    The curvature of the mean loss is the sum over ``outputs`` of ``weights`` times products of changes.

    Attributes:
        mean: the loss of the batch, as the task's ``loss`` gives it.
        each: contributions of the rows; their mean is the loss. float64 [rows], on the CPU.
        outputs: [n], on the CPU.
        weights: float64, for ``outputs``; those of the point itself count.
        row: int64 [n], the row of the batch of each output.
        drawn: the tokens that were drawn at the point itself, or None.
    """

    mean: float
    each: Tensor
    outputs: Tensor
    weights: Tensor
    row: Tensor
    drawn: Tensor | None = None


def of_classes(losses: Tensor, logits: Tensor) -> Predictions:
    """Predictions of a classification.

    Args:
        losses: of the rows, fp32 [rows].
        logits: of the classes, or their log-likelihoods: [rows, classes].
    """
    log_p = logits.double().cpu().log_softmax(dim=1)
    rows, classes = log_p.shape
    row = torch.arange(rows).repeat_interleave(classes)
    weights = (log_p.exp() / rows).flatten()
    return Predictions(float(losses.mean()), losses.double().cpu(), log_p.flatten(), weights, row)


def of_squares(errors: Tensor, outputs: Tensor) -> Predictions:
    """Predictions of a mean squared error.

    Args:
        errors: of the rows, fp32 [rows].
        outputs: what the error is of, [rows, …].
    """
    rows, flat = len(outputs), outputs.flatten().cpu()
    row = torch.arange(rows).repeat_interleave(outputs[0].numel())
    weights = torch.full((len(flat),), 2.0 / len(flat), dtype=torch.float64)
    return Predictions(float(errors.mean()), errors.double().cpu(), flat, weights, row)


def drawn_from(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token for each row of logits, int64 [rows], drawn with its probability.

    Args:
        uniform: a number on (0, 1) for each row.
    """
    mass = torch.softmax(logits, dim=1).cumsum(dim=1)
    wanted = uniform.to(mass.device, mass.dtype)[:, None] * mass[:, -1:]
    return torch.searchsorted(mass, wanted)[:, 0].clamp_(max=logits.shape[1] - 1)
