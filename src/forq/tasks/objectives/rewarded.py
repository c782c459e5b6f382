"""A task whose objective is a reward: any function of the model's answers, differentiable or not."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.scalars.losses import Losses
from forq.tasks import Score, Split, Tally, Task, Tokenizer
from forq.tasks.objectives import rewards

# Their own code stays as it is, because it is part of the digest of every run with a shipped reward.
_OF_SEVERAL = (rewards.f1, rewards.exact_match)

_EXCERPT = 200
"""Number of characters from the end of a prompt that an error shows."""


class Answer(NamedTuple):
    """The prompt, the model's answer, and the row it belongs to."""

    prompt: str
    text: str
    row: Mapping[str, object]


@runtime_checkable
class Answers(Protocol):
    """A task whose model gives answers in text."""

    def answers(self, model: nn.Module, batch: Any) -> list[Answer]:
        """The likeliest answer to each row of a batch, without gradients."""
        ...


@runtime_checkable
class ListsAnswers(Protocol):
    """A task whose rows can have several right answers."""

    def with_listed_answers(self) -> Task:
        """The same task with the ``answers`` of every row as a list; it itself if they are."""
        ...


@dataclass(frozen=True, slots=True)
class Rewarded:
    """Another task with −mean reward as its loss.

    Attributes:
        inner: the other task.
        reward: the function of (prompt, text, row).
        name: the reward's name, as the user gave it.
        source: digest of the source code of the reward.
    """

    inner: Any
    reward: Callable[[str, str, Mapping[str, object]], float]
    name: str
    source: str

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Answers):
            raise ConfigError("reward: expected a task with answers (a choice or a completion), found plain text")

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.inner.digest} {self.name} {self.source}".encode()).hexdigest()

    @property
    def tokenizer(self) -> Tokenizer:
        found: Tokenizer = self.inner.tokenizer
        return found

    def describe(self) -> Mapping[str, object]:
        inner = {name: value for name, value in self.inner.describe().items() if name != "ignored"}
        # The reward gets every field that a row keeps; only fields that are not kept stay ignored.
        kept = getattr(self.inner, "ignored", ())
        inner |= {"ignored": list(kept)} if kept else {}
        return {**inner, "reward": self.name, "reward_code": self.source, "digest": self.digest}

    def batch(self, step: int) -> Any:
        return self.inner.batch(step)

    def batches(self, split: Split, limit: int | None = None) -> Iterator[Any]:
        found: Iterator[Any] = self.inner.batches(split, limit)
        return found

    def loss(self, model: nn.Module, batch: Any) -> float:
        return self.losses(model, batch).mean

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        rewards = self._rewards(model, batch)
        return Losses(-sum(rewards) / len(rewards), tuple(-reward for reward in rewards))

    def loss_tensor(self, model: nn.Module, batch: Any) -> Tensor:
        raise ConfigError(f"the reward {self.name!r} has no gradient")

    def evaluate(self, model: nn.Module, split: Split, limit: int | None = None) -> Score:
        return self.total([self.tally(model, batch) for batch in self.batches(split, limit)], split, limit)

    def tally(self, model: nn.Module, batch: Any) -> Tally:
        inner: Tally = self.inner.tally(model, batch)
        return replace(inner, rewards=tuple(self._rewards(model, batch)))

    def total(self, tallies: Sequence[Tally], split: Split, limit: int | None = None) -> Score:
        plain: Score = self.inner.total(tallies, split, limit)
        rewards = [reward for tally in tallies for reward in tally.rewards]
        metrics = {**plain.metrics, "reward": sum(rewards) / len(rewards)}
        return replace(plain, metrics=metrics, main="reward")

    def _rewards(self, model: nn.Module, batch: Any) -> list[float]:
        with torch.inference_mode():
            answers = self.inner.answers(model, batch)
        return [self._of(answer) for answer in answers]

    def _of(self, answer: Answer) -> float:
        at = f"at the answer {answer.text!r} to {answer.prompt[-_EXCERPT:]!r}"
        try:
            found = self.reward(answer.prompt, answer.text, answer.row)
            number = math.nan if isinstance(found, str) else float(found)
        except Exception as error:  # whatever the user's code raises
            raise DataError(f"reward {self.name}: {type(error).__name__}: {error}, {at}") from error
        if not math.isfinite(number):
            raise DataError(f"reward {self.name}: expected a finite number, found {found!r}, {at}")
        return number


def rewarded(task: Task, reward: Callable[..., float], name: str, source: str) -> Task:
    """The task with the reward as its objective.

    The shipped rewards of several answers get them as a list; a function of the user's gets the row as it is.
    """
    if reward in _OF_SEVERAL and isinstance(task, ListsAnswers):
        task = task.with_listed_answers()
    made: Task = Rewarded(task, reward, name, source)
    return made
