"""Tasks: data, prompt and score. One task is one file with ``open(data, tokenizer, *, seed, …) -> Task``.

A task module also has ``example(folder) -> Path``, which writes a tiny data set of its kind; the contract
tests run the laws below against it for every file of this package. Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from forq.scalars.losses import Losses
from forq.tasks.rows.account import Account, account
from forq.tokens import Tokenizer

__all__ = [
    "SHARES",
    "Account",
    "Compares",
    "Draws",
    "Score",
    "Split",
    "Task",
    "Tokenizer",
    "Writes",
    "account",
    "shown",
]

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forq.tasks.kinds.features import Judge

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Score:
    """What an evaluation found.

    Attributes:
        loss: mean over what the task averages (tokens or rows), in nats.
        rows: rows scored.
        metrics: what else was measured, by name, higher is better (``accuracy``, ``f1``, ``reward``). Shares are 0 … 1.
        main: what a checkpoint is chosen by: ``loss``, or the name of a metric.
    """

    loss: float
    rows: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    main: str = "loss"

    @property
    def value(self) -> float:
        """The main number."""
        return self.loss if self.main == "loss" else self.metrics[self.main]

    @property
    def higher_is_better(self) -> bool:
        return self.main != "loss"

    def numbers(self) -> dict[str, float]:
        """Loss and metrics by name, as people and ``--json`` get them."""
        return {"loss": self.loss, **self.metrics}

    def better_than(self, other: Score | None) -> bool:
        """Whether this score beats the other. The loss tells equal main numbers apart; NaN never wins."""
        if self._broken:
            return False
        if other is None or other._broken:
            return True
        if self.value == other.value:
            return self.loss < other.loss
        return (self.value > other.value) is self.higher_is_better

    @property
    def _broken(self) -> bool:
        return self.loss != self.loss or self.value != self.value


SHARES = ("accuracy", "f1", "exact_match")
"""Metrics that are shares, 0 … 1."""


def shown(name: str, value: float) -> str:
    """A loss or a metric of that name as people read it: shares as percentages."""
    return f"{value:.1%}" if name in SHARES else f"{value:.4f}"


class Task(Protocol):
    """What a run trains on. A batch is the task's own affair: what ``batch`` makes, only ``loss`` reads.

    Laws:

    - ``batch(step)`` is a pure function of (``digest``, seed, step): any order, any process, the same batch;
    - ``digest`` changes with every token and every setting that a batch depends on;
    - ``evaluate`` gives the same score for the same weights; no row stands in two splits.
    """

    @property
    def digest(self) -> str:
        """Hex digest of the tokenised data and the settings."""
        ...

    def describe(self) -> Mapping[str, object]:
        """What a journal's header says of the data: plain numbers, names and lists."""
        ...

    def batch(self, step: int) -> Any:
        """The training batch of a step ≥ 0, on the CPU."""
        ...

    def batches(self, split: Split, limit: int | None = None) -> Iterator[Any]:
        """The first ``limit`` rows of a split (None: all), each once, on the CPU."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> float:
        """The training objective in fp32, without grad."""
        ...

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """The same to the last bit, with the contribution of every row of the batch."""
        ...

    def loss_tensor(self, model: nn.Module, batch: Any) -> Tensor:
        """The same as a scalar tensor, under grad if the caller enabled it."""
        ...

    def evaluate(self, model: nn.Module, split: Split, limit: int | None = None) -> Score:
        """Score the first ``limit`` rows of a split (None: all), without grad."""
        ...


@runtime_checkable
class Writes(Protocol):
    """A task whose model can be shown by what it writes."""

    def sample(self, model: nn.Module, n_tokens: int) -> str:
        """A held-out prompt and its continuation by ``n_tokens`` tokens; the same weights give the same text."""
        ...


@runtime_checkable
class Draws(Protocol):
    """A task whose model can be shown by what it draws."""

    def pictures(self, model: nn.Module) -> Any:
        """A picture (of Pillow) of its samples, or None; the same weights give the same."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A task whose model can be judged by how far what it draws is from held-out pictures."""

    def judge(self, split: Split) -> Judge | None:
        """What measures a model, or several from the same noise; None where no network was named to do it in."""
        ...
