"""What became of a task's rows: how many are used, what the limit on their length took away, and what nothing reads.

An account is made from a task's description, so a journal's header holds all of it: ``forq tune`` shows it before the
first step, ``result.json`` and the report after the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

SHARE = 10
"""A loss of more than one row in so many is worth a warning."""

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Account:
    """The rows of a task, by split.

    Attributes:
        used: rows that are trained on or scored.
        dropped: rows left out, because what is learned of them does not fit into ``max_length`` tokens.
        truncated: rows among the used ones that lost tokens to ``max_length``.
        max_length: tokens of a row at most; None where the task has no such limit.
        part: what a truncated row loses, as "the beginning of the prompt".
        whole: the least ``max_length`` that holds nine rows in ten whole, for splits where it holds fewer.
        ignored: fields of the rows that nothing reads.
        unused: files and splits of the data that are not read.
    """

    used: Mapping[str, int]
    dropped: Mapping[str, int] = field(default_factory=dict)
    truncated: Mapping[str, int] = field(default_factory=dict)
    max_length: int | None = None
    part: str = "tokens"
    whole: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @classmethod
    def of(cls, description: Mapping[str, object]) -> Account:
        """The account in a task's description, which may be that of an old journal and lack some of it."""
        limits = description.get("limits")
        limits = limits if isinstance(limits, Mapping) else {}
        max_length = description.get("max_length")
        return cls(
            used=_counts(description.get("rows")),
            dropped=_counts(description.get("dropped")),
            truncated=_counts(description.get("truncated")),
            max_length=max_length if isinstance(max_length, int) else None,
            part=str(limits.get("part", "tokens")),
            whole=_counts(limits.get("whole")),
            ignored=_texts(description.get("ignored")),
            unused=_texts(description.get("unused")),
        )

    def only(self, split: str) -> Account:
        """The account of one split."""
        return replace(self, used={name: count for name, count in self.used.items() if name == split})

    def read(self, split: str) -> int:
        """Rows of a split that were read."""
        return self.used[split] + self.dropped.get(split, 0)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with rows, training first."""
        return tuple(split for split in _SPLITS if split in self.used)

    @property
    def line(self) -> str:
        """Counts and ignored fields in a line; empty where the task counts no rows."""
        if not self.splits:
            return ""
        parts = [f"rows: {', '.join(self._counted(split) for split in self.splits)}"]
        if self.ignored:
            parts.append(f"ignored fields: {', '.join(self.ignored)}")
        if self.unused:
            parts.append(f"not read: {', '.join(self.unused)}")
        return "; ".join(parts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence on splits that lose over a tenth of their rows, and one on splits of which so many lose tokens."""
        dropped = self._many(self.dropped, self.read)
        cut = self._many(self.truncated, lambda split: self.used[split])
        found = []
        if dropped:
            found.append(
                f"{_listed(dropped)} are dropped, because what is to be learned of them does not fit into "
                f"{self.max_length:,} tokens{self._advice(dropped)}"
            )
        if cut:
            found.append(
                f"{_listed(cut)} are longer than {self.max_length:,} tokens and lose {self.part}{self._advice(cut)}"
            )
        return tuple(found)

    def plain(self) -> dict[str, object]:
        """The account as JSON."""
        return {
            "splits": {
                split: {
                    "read": self.read(split),
                    "used": self.used[split],
                    "dropped": self.dropped.get(split, 0),
                    "truncated": self.truncated.get(split, 0),
                }
                for split in self.splits
            },
            "max_length": self.max_length,
            "ignored": list(self.ignored),
            "unused": list(self.unused),
            "warnings": list(self.warnings),
        }

    def _counted(self, split: str) -> str:
        lost, cut = self.dropped.get(split, 0), self.truncated.get(split, 0)
        losses = [f"{lost:,} dropped"] if lost else []
        losses += [f"{cut:,} truncated"] if cut else []
        limit = f" at {self.max_length:,} tokens" if self.max_length is not None else ""
        return f"{split} {self.used[split]:,}" + (f" ({', '.join(losses)}{limit})" if losses else "")

    def _advice(self, splits: Iterable[str]) -> str:
        """The limit to take, where there is one that helps."""
        enough = max((self.whole.get(split, 0) for split in splits), default=0)
        return f"; task.max_length={enough} holds nine in ten whole" if enough else ""

    def _many(self, counts: Mapping[str, int], of: Callable[[str], int]) -> dict[str, tuple[int, int]]:
        """Counts above a tenth by split, each with what it is a share of."""
        pairs = {split: (counts.get(split, 0), of(split)) for split in self.splits}
        return {split: (count, rows) for split, (count, rows) in pairs.items() if count * SHARE > rows}


class Described(Protocol):
    """What a task says of its data."""

    def describe(self) -> Mapping[str, object]: ...


def account(task: Described) -> Account:
    """The account of an open task.

    Example:
        >>> account(forq.runs.tune.open_task(config, model, seed=0)).warnings    # doctest: +SKIP
    """
    return Account.of(task.describe())


def nine_in_ten(lengths: Sequence[int]) -> int:
    """The least limit that at least nine in ten of the lengths keep within.

    Example:
        >>> nine_in_ten([3, 1, 9, 4, 4, 4, 4, 4, 4, 4])
        4
    """
    return sorted(lengths)[-(-9 * len(lengths) // 10) - 1]


def _counts(value: object) -> Mapping[str, int]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


def _listed(counts: Mapping[str, tuple[int, int]]) -> str:
    shares = (f"{split} {count:,} of {rows:,} ({count / rows:.0%})" for split, (count, rows) in counts.items())
    return f"rows: {', '.join(shares)}"
