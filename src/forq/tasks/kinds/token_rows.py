"""Rows of tokens, some of which are learned: language modelling and completions share this objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from forq.tasks.objectives import losses
from forq.tasks.objectives.predictions import Predictions, Uniform
from forq.tasks.rows.rows import Rows
from forq.tokens.batches import Batch

R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TokenRows(Rows[R, Batch]):
    """The objective is the mean negative log-likelihood over the learned tokens of a batch."""

    read_apart: ClassVar[bool] = True

    def measured(self, model: nn.Module, batch: Batch) -> tuple[Tensor, None]:
        return losses.token_nll(model, batch), None

    def by_row(self, measured: Tensor, batch: Batch) -> Tensor:
        return losses.by_row(measured, batch)

    def predictions(self, model: nn.Module, batch: Batch, at: Predictions | None, uniform: Uniform) -> Predictions:
        with torch.inference_mode():
            return losses.token_predictions(model, batch, None if at is None else at.drawn, uniform)
