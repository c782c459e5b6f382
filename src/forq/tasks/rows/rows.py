"""Tasks whose data are rows: which rows a step takes, and what is measured of them. What a row is, a task says."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.scalars.losses import Losses
from forq.tasks import Score, Split, Tokenizer
from forq.tasks.rows.account import SHARE, nine_in_ten
from forq.tasks.rows.order import row_at, rows_of
from forq.tasks.rows.segments import Segment

R = TypeVar("R")
B = TypeVar("B")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rows(ABC, Generic[R, B]):
    """What all tasks of rows do alike.

    Attributes:
        rows: by split.
        max_length: tokens of a row at most.
        batch_rows: rows of a batch, where ``tokens_per_probe`` does not say otherwise.
        tokens_per_probe: a batch takes rows while they hold no more tokens together; one row at least.
        micro_batch_tokens: of one forward, padding included. It bounds memory and changes no loss but in its last bits.
        dropped: tokens of every row that was left out, because what is learned of it does not fit.
        part: what a row loses that is longer than ``max_length``, in words; empty where no row can be.
        ignored: fields of the rows that nothing reads.
        unused: files and splits of the data that are not read.

    Raises:
        DataError: more training rows are dropped than kept, or all rows of another split.
    """

    name: str
    rows: Mapping[Split, Sequence[R]]
    tokenizer: Tokenizer
    seed: int
    max_length: int
    batch_rows: int
    digest: str
    tokens_per_probe: int | None = None
    micro_batch_tokens: int | None = None
    dropped: Mapping[Split, tuple[int, ...]] = field(default_factory=dict)
    part: str = ""
    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    _starts: list[int] = field(default_factory=lambda: [0], init=False, repr=False)

    def __post_init__(self) -> None:
        for split, rows in self.rows.items():
            lost = len(self.dropped.get(split, ()))
            if lost > len(rows) if split == "train" else lost and not len(rows):
                enough = self._whole(split)
                advice = f"task.max_length={enough} holds nine in ten whole" if enough > self.max_length else "see them"
                raise DataError(
                    f"{self.name}: {lost:,} of {lost + len(rows):,} rows of {split} would be dropped, because what is "
                    f"to be learned of them does not fit into {self.max_length:,} tokens; {advice}"
                )

    @abstractmethod
    def length(self, row: R) -> int:
        """Tokens a forward computes for a row."""

    @abstractmethod
    def segments(self, row: R) -> Sequence[Segment]:
        """A row as the model sees it."""

    def lost(self, row: R) -> int:
        """Tokens that ``max_length`` took from a row."""
        return 0

    @abstractmethod
    def pack(self, rows: Sequence[R], most_tokens: int | None = None) -> B:
        """One batch of rows, with the bound on its forwards."""

    @abstractmethod
    def measured(self, model: nn.Module, batch: B) -> tuple[Tensor, Tensor | None]:
        """What the objective averages, fp32 [n], and which rows were right, bool [rows], where that can be said."""

    def by_row(self, measured: Tensor, batch: B) -> Tensor:
        """The contribution of every row to the mean of what was measured, [rows]; by default a row is one number."""
        return measured

    @abstractmethod
    def details(self) -> Mapping[str, object]:
        """What a description says beside what all tasks of rows say."""

    def metrics(self, model: nn.Module, batch: B) -> Mapping[str, float]:
        """Further sums over rows, by metric; the first is what a checkpoint is chosen by."""
        return {}

    def budgeted(self, tokens_per_probe: int | None, micro_batch_tokens: int | None) -> Self:
        """The same task under other budgets.

        Raises:
            ConfigError: a budget below 1.
        """
        told = {"tokens_per_probe": tokens_per_probe, "micro_batch_tokens": micro_batch_tokens}
        for name, tokens in told.items():
            if tokens is not None and tokens < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: expected 1 token or more, found {tokens}")
        if told == {"tokens_per_probe": self.tokens_per_probe, "micro_batch_tokens": self.micro_batch_tokens}:
            return self
        digest = hashlib.sha256(f"{self.digest} {told}".encode()).hexdigest()
        return replace(self, digest=digest, **told)  # type: ignore[arg-type]

    def describe(self) -> Mapping[str, object]:
        said: dict[str, object] = {
            "task": self.name,
            "rows": self._by_split(len),
            "tokens": self._by_split(lambda rows: sum(map(self.length, rows))),
            **self._losses(),
            **self.details(),
            "max_length": self.max_length,
        }
        if self.tokens_per_probe is None:
            said["batch_rows"] = self.batch_rows
        else:
            said["tokens_per_probe"] = self.tokens_per_probe
        if self.micro_batch_tokens is not None:
            said["micro_batch_tokens"] = self.micro_batch_tokens
        said |= {"ignored": list(self.ignored)} if self.ignored else {}
        said |= {"unused": list(self.unused)} if self.unused else {}
        return said | {"digest": self.digest}

    def _losses(self) -> dict[str, object]:
        """Rows that ``max_length`` cost something, and which limit would cost little where these are many."""
        if not self.part:
            return {}
        cut = self._by_split(lambda rows: sum(self.lost(row) > 0 for row in rows))
        dropped = {split: len(lengths) for split, lengths in self.dropped.items()}
        found: dict[str, object] = {"truncated": cut}
        found |= {"dropped": dropped} if dropped else {}
        whole = {
            split: self._whole(split)
            for split, rows in self.rows.items()
            if cut[split] * SHARE > len(rows) or (lost := dropped.get(split, 0)) * SHARE > lost + len(rows)
        }
        whole = {split: enough for split, enough in whole.items() if enough > self.max_length}
        return found | ({"limits": {"part": self.part, "whole": whole}} if whole else {})

    def _whole(self, split: Split) -> int:
        """The least ``max_length`` that holds nine rows in ten of a split whole."""
        used = [self.length(row) + self.lost(row) for row in self.rows[split]]
        return nine_in_ten([*used, *self.dropped.get(split, ())])

    def batch(self, step: int) -> B:
        rows = self.rows["train"]
        if self.tokens_per_probe is None:
            picked = rows_of(step, rows=len(rows), batch_rows=self.batch_rows, seed=self.seed, digest=self.digest)
            return self._packed([rows[index] for index in picked])
        return self._packed(self._filled(step, self.tokens_per_probe))

    def batches(self, split: Split, limit: int | None = None) -> Iterator[B]:
        # Rows of like length stand together, so that little is padded.
        rows = sorted(self.rows[split][:limit], key=self.length)
        for start in range(0, len(rows), self.batch_rows):
            yield self._packed(rows[start : start + self.batch_rows])

    def loss(self, model: nn.Module, batch: B) -> float:
        with torch.inference_mode():
            return float(self.loss_tensor(model, batch))

    def losses(self, model: nn.Module, batch: B) -> Losses:
        with torch.inference_mode():
            measured, _ = self.measured(model, batch)
            return Losses(float(measured.mean()), tuple(self.by_row(measured, batch).tolist()))

    def loss_tensor(self, model: nn.Module, batch: B) -> Tensor:
        return self.measured(model, batch)[0].mean()

    def evaluate(self, model: nn.Module, split: Split, limit: int | None = None) -> Score:
        total, parts = 0.0, 0
        rows = len(self.rows[split][:limit])
        sums: dict[str, float] = {}
        for batch in self.batches(split, limit):
            with torch.inference_mode():
                nll, right = self.measured(model, batch)
            total += float(nll.double().sum())
            parts += len(nll)
            found = {} if right is None else {"accuracy": float(right.sum())}
            for name, amount in {**found, **self.metrics(model, batch)}.items():
                sums[name] = sums.get(name, 0.0) + amount
        if rows == 0:
            raise ConfigError(f"limit must leave at least one row to evaluate, found {limit}")
        means = {name: amount / rows for name, amount in sums.items()}
        return Score(total / parts, rows, means, main=next(iter(means), "loss"))

    def _packed(self, rows: Sequence[R]) -> B:
        return self.pack(rows, self.micro_batch_tokens)

    def _by_split(self, of: Callable[[Sequence[R]], T]) -> dict[Split, T]:
        return {split: of(rows) for split, rows in self.rows.items()}

    def _filled(self, step: int, budget: int) -> list[R]:
        """Rows of a step: the steps before it say where it starts, so those are laid out once and remembered."""
        if step < 0:
            raise ConfigError(f"step must be 0 or more, found {step}")
        while len(self._starts) <= step + 1:
            start = self._starts[-1]
            self._starts.append(start + len(self._from(start, budget)))
        return self._from(self._starts[step], budget)

    def _from(self, start: int, budget: int) -> list[R]:
        rows, found, tokens = self.rows["train"], list[R](), 0
        for place in count(start):
            row = rows[row_at(place, rows=len(rows), seed=self.seed, digest=self.digest)]
            tokens += self.length(row)
            if found and tokens > budget:
                return found
            found.append(row)
        raise AssertionError


def counts(labels: Iterable[int], classes: int) -> list[int]:
    """How often each class stands among the labels."""
    found = Counter(labels)
    return [found[label] for label in range(classes)]
