"""Tasks: data, prompt and score. One task is one file with ``open(data, tokenizer, *, seed, …) -> Task``.

A task module also has ``example(folder) -> Path``, which writes a tiny data set that the task can
read. The contract tests check the laws below on it, for every file of this package. Importing this
package does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    "InOrder",
    "Predicts",
    "ReadsApart",
    "Score",
    "Settles",
    "Split",
    "Tallies",
    "Tally",
    "Task",
    "Tokenizer",
    "Writes",
    "account",
    "shown",
]

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forq.tasks.kinds.features import Judge
    from forq.tasks.objectives.predictions import Predictions, Uniform

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Score:
    """The result of an evaluation.

    Attributes:
        loss: mean loss over tokens or rows (the task decides which), in nats.
        rows: number of rows that were scored.
        metrics: further metrics by name (``accuracy``, ``f1``, ``reward``). Higher is better. Shares
            lie between 0 and 1.
        main: the number that selects the best checkpoint: ``loss``, or the name of a metric.
        confusion: number of rows by right class (first index) and by chosen class; empty if the task does not count
            them.
    """

    loss: float
    rows: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    main: str = "loss"
    confusion: Sequence[Sequence[int]] = ()

    @property
    def value(self) -> float:
        """The main number."""
        return self.loss if self.main == "loss" else self.metrics[self.main]

    @property
    def higher_is_better(self) -> bool:
        return self.main != "loss"

    def numbers(self) -> dict[str, float]:
        """Loss and metrics by name, as they are printed and written by ``--json``."""
        return {"loss": self.loss, **self.metrics}

    def better_than(self, other: Score | None) -> bool:
        """Whether this score is better. If the main numbers are equal, the lower loss wins; NaN never wins."""
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


@dataclass(frozen=True, slots=True)
class Tally:
    """What a score needs of one batch.

    Attributes:
        loss: sum of the losses.
        parts: number of losses in it.
        sums: sums of the metrics over the rows, by name; the first metric selects the best checkpoint.
        marks: of each row the class that the model chose, and the right one; None where rows have no classes.
        rewards: of each row, where the objective is a reward.
    """

    loss: float
    parts: int
    sums: Mapping[str, float] = field(default_factory=dict)
    marks: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    rewards: tuple[float, ...] = ()


SHARES = ("accuracy", "f1", "exact_match", "macro_f1")
"""Names of metrics that are shares, 0 … 1."""


def shown(name: str, value: float) -> str:
    """A loss or a metric as text for people: shares are written as percentages."""
    return f"{value:.1%}" if name in SHARES else f"{value:.4f}"


class Task(Protocol):
    """What a run trains on. A batch is opaque to its caller: only the task's own methods read it.

    Laws:

    - ``batch(step)`` is a pure function of (``digest``, seed, step). It returns the same batch in
      every order of calls and in every process.
    - ``digest`` changes with every token and every setting that a batch depends on.
    - ``evaluate`` gives the same score for the same weights.
    - No row is in two splits.
    """

    @property
    def digest(self) -> str:
        """Hex digest of the tokenised data and the task's settings."""
        ...

    def describe(self) -> Mapping[str, object]:
        """The description of the data for a journal's header: plain numbers, names and lists."""
        ...

    def batch(self, step: int) -> Any:
        """The training batch of a step (0 or more), on the CPU."""
        ...

    def batches(self, split: Split, limit: int | None = None) -> Iterator[Any]:
        """The first ``limit`` rows of a split (None: all), each once, on the CPU."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> float:
        """The training loss in fp32, without gradients."""
        ...

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """The same to the last bit, with the contribution of every row of the batch."""
        ...

    def loss_tensor(self, model: nn.Module, batch: Any) -> Tensor:
        """The training loss as a scalar tensor; differentiable if the caller enabled gradients."""
        ...

    def evaluate(self, model: nn.Module, split: Split, limit: int | None = None) -> Score:
        """Score the first ``limit`` rows of a split (None: all), without gradients."""
        ...


@runtime_checkable
class Predicts(Protocol):
    """A task whose loss is of predictions, so that its curvature can be measured in forward passes."""

    def predictions(self, model: nn.Module, batch: Any, at: Predictions | None, uniform: Uniform) -> Predictions:
        """What the model predicts on a batch, without gradients; its mean is :meth:`Task.loss` to the last bit.

        Args:
            at: the predictions at the point itself, where the model is displaced; they hold what was drawn there.
            uniform: numbers to draw with.
        """
        ...


@runtime_checkable
class ReadsApart(Protocol):
    """A task that says whether a model reads each of its rows as an input of its own.

    Only then can every row see directions of its own (:attr:`forq.scalars.moves.Move.by_row`). The task names the
    rows of each forward pass with :func:`forq.tokens.forward.forward_of`.
    """

    @property
    def read_apart(self) -> bool: ...


@runtime_checkable
class InOrder(Protocol):
    """A task that says whether the rows of its batches stand in an order, such as that of their noise levels."""

    @property
    def in_order(self) -> bool: ...


@runtime_checkable
class Tallies(Protocol):
    """A task whose score is made of what each batch gives, so that several processes can share an evaluation.

    Law: ``evaluate(model, split, limit)`` is ``total`` of the tallies of ``batches(split, limit)``, to the last bit.
    """

    def batches(self, split: Split, limit: int | None = None) -> Iterator[Any]: ...

    def tally(self, model: nn.Module, batch: Any) -> Tally:
        """What a score needs of one batch, without gradients."""
        ...

    def total(self, tallies: Sequence[Tally], split: Split, limit: int | None = None) -> Score:
        """The score from the tallies of all batches, in their order."""
        ...


@runtime_checkable
class Settles(Protocol):
    """A task with numbers that are measured on the model once, and belong to the run from then on.

    They stand in the description under the name of the option that gives them again.
    """

    def settled(self, model: nn.Module) -> Task:
        """The same task with its numbers; it itself if it has them already."""
        ...


@runtime_checkable
class Writes(Protocol):
    """A task whose model writes text, so that a sample of it can be shown."""

    def sample(self, model: nn.Module, n_tokens: int) -> str:
        """A held-out prompt and its continuation by ``n_tokens`` tokens.

        The same weights give the same text.
        """
        ...


@runtime_checkable
class Draws(Protocol):
    """A task whose model draws pictures, so that samples of them can be shown."""

    def pictures(self, model: nn.Module) -> Any:
        """The model's samples as a Pillow image, or None if the task draws none.

        The same weights give the same image.
        """
        ...


@runtime_checkable
class Compares(Protocol):
    """A task that can measure the distance between drawn and held-out pictures."""

    def judge(self, split: Split) -> Judge | None:
        """A judge, which gives every model the same noise; None if no feature network is configured."""
        ...
