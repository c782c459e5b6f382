"""Tasks: data, prompt and score. One task is one file with ``open(data, tokenizer, *, seed, …) -> Task``.

A task module also has ``example(folder) -> Path``, which writes a tiny data set of its kind; the contract
tests run the laws below against it for every file of this package. Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forq.losses import Batch

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Score:
    """What an evaluation found.

    Attributes:
        loss: mean over what the task averages (tokens or rows), in nats.
        rows: rows scored.
        accuracy: share of rows answered rightly, 0 … 1; None where nothing is chosen.
        main: the number a checkpoint is chosen by.
    """

    loss: float
    rows: int
    accuracy: float | None = None
    main: Literal["loss", "accuracy"] = "loss"

    @property
    def value(self) -> float:
        """The main number."""
        return self.accuracy if self.main == "accuracy" and self.accuracy is not None else self.loss

    @property
    def higher_is_better(self) -> bool:
        return self.main == "accuracy"

    def better_than(self, other: Score | None) -> bool:
        """Whether this score beats the other. The loss tells equal main numbers apart; NaN never wins."""
        if self.loss != self.loss:
            return False
        if other is None or other.loss != other.loss:
            return True
        if self.value == other.value:
            return self.loss < other.loss
        return (self.value > other.value) is self.higher_is_better


class Task(Protocol):
    """Laws:

    - ``batch(step)`` is a pure function of (``digest``, seed, step): any order, any process, the same batch;
    - ``digest`` changes with every token and every setting that a batch depends on;
    - ``evaluate`` gives the same score for the same weights; no row stands in two splits.
    """

    @property
    def digest(self) -> str:
        """Hex digest of the tokenised data and the settings."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What a journal's header says of the data: plain numbers, names and lists."""
        ...

    def batch(self, step: int) -> Batch:
        """The training batch of a step ≥ 0, on the CPU."""
        ...

    def batches(self, split: Split, limit: int | None = None) -> Iterator[Batch]:
        """The first ``limit`` rows of a split (None: all), each once, on the CPU."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> float:
        """The training objective in fp32, without grad."""
        ...

    def loss_tensor(self, model: nn.Module, batch: Batch) -> Tensor:
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


class Tokenizer(Protocol):
    """What tasks need of a tokenizer of transformers."""

    def __call__(self, text: str, *, add_special_tokens: bool = True, verbose: bool = True) -> Mapping[str, Any]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str: ...
