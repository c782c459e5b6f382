"""Tasks whose data are rows: the rows of a step, their losses and scores. A subclass defines what a row is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import ClassVar, Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.scalars.losses import Losses
from forq.tasks import Score, Split, Tally, Tokenizer
from forq.tasks.rows.account import SHARE, nine_in_ten
from forq.tasks.rows.order import balanced_row_at, places_of, row_at
from forq.tasks.rows.segments import Segment
from forq.tasks.rows.taken import Taken

R = TypeVar("R")
B = TypeVar("B")
T = TypeVar("T")


class Marks(NamedTuple):
    """Of each row the class that the model chose and the right one, int64 [rows]."""

    best: Tensor
    label: Tensor

    @property
    def right(self) -> Tensor:
        """Whether the class is the right one, bool [rows]."""
        return self.best == self.label


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rows(ABC, Generic[R, B]):
    """The common part of all tasks of rows.

    Attributes:
        rows: the rows of each split.
        max_length: maximum number of tokens in a row.
        positions: number of positions of the model that reads the rows; None: no limit, or not known.
        batch_rows: rows per batch, unless ``tokens_per_probe`` is set.
        tokens_per_probe: token budget of a batch: it takes rows until the budget is full, at least one.
        micro_batch_tokens: maximum number of tokens in one forward, padding included. It bounds memory
            and changes only the last bits of a loss.
        dropped: lengths in tokens of the rows that were left out, because their scored part does not fit.
        part: the part a row loses if it is longer than ``max_length``, in words; empty if no row can
            be longer.
        ignored: fields of the rows that nothing reads.
        unused: files and splits of the data that are not read.
        quoted: number of rows with a field in quotes that are read as they stand.
        taken: what the splits leave of the data's rows.
        by_class: the row numbers of each class of training rows, if every batch has as many rows of
            each; see :func:`forq.tasks.rows.order.balanced_row_at`. None: all rows take part alike.
        read_apart: see :class:`forq.tasks.ReadsApart`.

    Raises:
        DataError: more training rows are dropped than kept, or all rows of another split are dropped.
    """

    read_apart: ClassVar[bool] = False

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
    quoted: int = 0
    taken: Taken = field(default_factory=Taken)
    by_class: tuple[tuple[int, ...], ...] | None = None
    positions: int | None = None
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
        """Number of tokens a forward computes for a row."""

    def reach(self, row: R) -> int:
        """Number of the model's positions that a row needs."""
        return self.length(row)

    @property
    def longest(self) -> int:
        """The most positions that a row of any split needs."""
        return max((self.reach(row) for rows in self.rows.values() for row in rows), default=0)

    @abstractmethod
    def segments(self, row: R) -> Sequence[Segment]:
        """A row as the model sees it."""

    def lost(self, row: R) -> int:
        """Number of tokens that a row lost to ``max_length``."""
        return 0

    @abstractmethod
    def pack(self, rows: Sequence[R], most_tokens: int | None = None) -> B:
        """Pack rows into a batch; ``most_tokens`` bounds each of its forwards."""

    @abstractmethod
    def measured(self, model: nn.Module, batch: B) -> tuple[Tensor, Marks | None]:
        """What the objective averages, fp32 [n], and the classes of the rows, where they have any."""

    def by_row(self, measured: Tensor, batch: B) -> Tensor:
        """The contribution of every row to the mean of what was measured, [rows]; by default a row is one number."""
        return measured

    @abstractmethod
    def details(self) -> Mapping[str, object]:
        """Entries for the description, beside those that all tasks of rows share."""

    def metrics(self, model: nn.Module, batch: B) -> Mapping[str, float]:
        """Sums of further metrics over the rows; the first metric selects the best checkpoint."""
        return {}

    def counted(self, score: Score, marks: Sequence[Marks]) -> Score:
        """The score with what the classes of all rows together say, where they have any."""
        return score

    def budgeted(self, tokens_per_probe: int | None, micro_batch_tokens: int | None) -> Self:
        """The same task with other token budgets.

        Raises:
            ConfigError: a budget is below 1.
        """
        budgets = {"tokens_per_probe": tokens_per_probe, "micro_batch_tokens": micro_batch_tokens}
        for name, tokens in budgets.items():
            if tokens is not None and tokens < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: expected 1 token or more, found {tokens}")
        if budgets == {"tokens_per_probe": self.tokens_per_probe, "micro_batch_tokens": self.micro_batch_tokens}:
            return self
        digest = hashlib.sha256(f"{self.digest} {budgets}".encode()).hexdigest()
        return replace(self, digest=digest, **budgets)  # type: ignore[arg-type]

    def describe(self) -> Mapping[str, object]:
        description: dict[str, object] = {
            "task": self.name,
            "rows": self._by_split(len),
            "tokens": self._by_split(lambda rows: sum(map(self.length, rows))),
            **self._shortened(),
            **self.taken.plain(),
            **self.details(),
            "max_length": self.max_length,
        }
        if self.positions is not None:
            description["positions"] = self.positions
        if self.tokens_per_probe is None:
            description["batch_rows"] = self.batch_rows
        else:
            description["tokens_per_probe"] = self.tokens_per_probe
        if self.micro_batch_tokens is not None:
            description["micro_batch_tokens"] = self.micro_batch_tokens
        description |= {"ignored": list(self.ignored)} if self.ignored else {}
        description |= {"unused": list(self.unused)} if self.unused else {}
        description |= {"quoted": self.quoted} if self.quoted else {}
        return description | {"digest": self.digest}

    def _shortened(self) -> dict[str, object]:
        """Counts of truncated and dropped rows, and a better ``max_length`` for splits that lose many."""
        if not self.part:
            return {}
        cut = self._by_split(lambda rows: sum(self.lost(row) > 0 for row in rows))
        dropped = {split: len(lengths) for split, lengths in self.dropped.items()}
        entries: dict[str, object] = {"truncated": cut}
        entries |= {"dropped": dropped} if dropped else {}
        whole = {
            split: self._whole(split)
            for split, rows in self.rows.items()
            if cut[split] * SHARE > len(rows) or (lost := dropped.get(split, 0)) * SHARE > lost + len(rows)
        }
        whole = {split: enough for split, enough in whole.items() if enough > self.max_length}
        return entries | ({"limits": {"part": self.part, "whole": whole}} if whole else {})

    def _whole(self, split: Split) -> int:
        """The smallest ``max_length`` that leaves nine in ten rows of a split whole."""
        used = [self.length(row) + self.lost(row) for row in self.rows[split]]
        return nine_in_ten([*used, *self.dropped.get(split, ())])

    def batch(self, step: int) -> B:
        if self.tokens_per_probe is None:
            return self._packed([self._row_at(place) for place in places_of(step, self.batch_rows)])
        return self._packed(self._filled(step, self.tokens_per_probe))

    def batches(self, split: Split, limit: int | None = None) -> Iterator[B]:
        # Rows of similar length share a batch, so that there is little padding.
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
        return self.total([self.tally(model, batch) for batch in self.batches(split, limit)], split, limit)

    def tally(self, model: nn.Module, batch: B) -> Tally:
        """What a score needs of one batch."""
        with torch.inference_mode():
            nll, classes = self.measured(model, batch)
        found = {} if classes is None else {"accuracy": float(classes.right.sum())}
        marks = None if classes is None else (tuple(classes.best.tolist()), tuple(classes.label.tolist()))
        return Tally(float(nll.double().sum()), len(nll), {**found, **self.metrics(model, batch)}, marks)

    def total(self, tallies: Sequence[Tally], split: Split, limit: int | None = None) -> Score:
        """The score from the tallies of all batches, in their order."""
        rows = len(self.rows[split][:limit])
        if rows == 0:
            raise ConfigError(f"limit must leave at least one row to evaluate, found {limit}")
        loss, parts = 0.0, 0
        sums: dict[str, float] = {}
        for tally in tallies:
            loss += tally.loss
            parts += tally.parts
            for name, amount in tally.sums.items():
                sums[name] = sums.get(name, 0.0) + amount
        means = {name: amount / rows for name, amount in sums.items()}
        marks = [Marks(*map(torch.tensor, tally.marks)) for tally in tallies if tally.marks is not None]
        return self.counted(Score(loss / parts, rows, means, main=next(iter(means), "loss")), marks)

    def _packed(self, rows: Sequence[R]) -> B:
        return self.pack(rows, self.micro_batch_tokens)

    def _by_split(self, of: Callable[[Sequence[R]], T]) -> dict[Split, T]:
        return {split: of(rows) for split, rows in self.rows.items()}

    def _filled(self, step: int, budget: int) -> list[R]:
        """The rows of a step. Where it starts depends on all steps before it, so the starts are cached."""
        if step < 0:
            raise ConfigError(f"step must be 0 or more, found {step}")
        while len(self._starts) <= step + 1:
            start = self._starts[-1]
            self._starts.append(start + len(self._from(start, budget)))
        return self._from(self._starts[step], budget)

    def _from(self, start: int, budget: int) -> list[R]:
        picked, tokens = list[R](), 0
        for place in count(start):
            row = self._row_at(place)
            tokens += self.length(row)
            if picked and tokens > budget:
                return picked
            picked.append(row)
        raise AssertionError

    def _row_at(self, place: int) -> R:
        """The training row at a place in the sequence of all epochs."""
        rows = self.rows["train"]
        if self.by_class is not None:
            return rows[balanced_row_at(place, classes=self.by_class, seed=self.seed, digest=self.digest)]
        return rows[row_at(place, rows=len(rows), seed=self.seed, digest=self.digest)]


def counts(labels: Iterable[int], classes: int) -> list[int]:
    """The number of labels of each class."""
    counter = Counter(labels)
    return [counter[label] for label in range(classes)]
