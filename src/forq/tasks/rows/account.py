"""How many of a task's rows are used, truncated and dropped, and which fields and files nothing reads.

An account is made from a task's description, so a journal's header contains all of it. ``forq tune``
prints it before the first step. ``result.json`` and the report contain it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

SHARE = 10
"""A split that loses more than one row in this many gets a warning."""

_SPLITS = ("train", "validation", "test")
_NAMED = 12


@dataclass(frozen=True, slots=True)
class Account:
    """The rows of a task, by split.

    Attributes:
        used: number of rows that are trained on or scored.
        dropped: number of rows left out, because their scored part does not fit into ``max_length``.
        left: number of rows of a split that its limit leaves out (``task.test_rows``).
        named: whether the names of the splits are shown; rows to predict are of none.
        drawn: splits without rows of their own, which took some of the training rows.
        truncated: number of used rows that lost tokens to ``max_length``.
        max_length: maximum number of tokens in a row; None if the task has no limit.
        positions: number of positions of the model; None: no limit, or not known.
        part: the part a truncated row loses, for example "the beginning of the prompt".
        whole: the smallest ``max_length`` that leaves nine in ten rows whole, for splits that lose more.
        ignored: fields of the rows that nothing reads.
        unused: files and splits of the data that are not read.
        balanced: every training batch has as many rows of each class.
        classes: number of training rows of each class that has a name.
        prior: shares of the words whatever the text is, which are taken out of every answer.
        missing: number of rows of each label that may stand for a missing one.
        probabilities: the network gives probabilities, and the logarithms of these are learned.
        quoted: number of rows of TSV files with a field in quotes, which are read as part of the text.
        by_value: class folders are numbers of the network's outputs by value.
        guessed: labels in the order in which a head without names of its own is taken to have them.
        transparent: number of images with transparent parts, which lie on white.
    """

    used: Mapping[str, int]
    dropped: Mapping[str, int] = field(default_factory=dict)
    truncated: Mapping[str, int] = field(default_factory=dict)
    max_length: int | None = None
    part: str = "tokens"
    whole: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    balanced: bool = False
    classes: Mapping[str, int] = field(default_factory=dict)
    prior: Mapping[str, float] = field(default_factory=dict)
    probabilities: bool = False
    left: Mapping[str, int] = field(default_factory=dict)
    drawn: tuple[str, ...] = ()
    positions: int | None = None
    named: bool = True
    missing: Mapping[str, int] = field(default_factory=dict)
    quoted: int = 0
    by_value: bool = False
    guessed: tuple[str, ...] = ()
    transparent: int = 0

    @classmethod
    def of(cls, description: Mapping[str, object]) -> Account:
        """The account in a task's description. Descriptions in old journals may lack some entries."""
        limits = description.get("limits")
        limits = limits if isinstance(limits, Mapping) else {}
        max_length, positions = description.get("max_length"), description.get("positions")
        quoted, transparent = description.get("quoted"), description.get("transparent")
        return cls(
            used=_counts(description.get("rows")),
            dropped=_counts(description.get("dropped")),
            truncated=_counts(description.get("truncated")),
            max_length=max_length if isinstance(max_length, int) else None,
            part=str(limits.get("part", "tokens")),
            whole=_counts(limits.get("whole")),
            ignored=_texts(description.get("ignored")),
            unused=_texts(description.get("unused")),
            balanced=description.get("balanced") is True,
            classes=_by_name(description),
            prior=_prior(description),
            probabilities=description.get("probabilities") is True,
            left=_counts(description.get("left")),
            drawn=_texts(description.get("drawn")),
            positions=positions if isinstance(positions, int) else None,
            missing=_counts(description.get("missing")),
            quoted=quoted if isinstance(quoted, int) else 0,
            by_value=description.get("by_value") is True,
            guessed=_texts(description.get("guessed")),
            transparent=transparent if isinstance(transparent, int) else 0,
        )

    def only(self, split: str) -> Account:
        """The account of one split; of one that is drawn from the training rows, all of these were read for it."""
        used = {name: count for name, count in self.used.items() if name == split}
        if split == "train":
            return replace(self, used=used)
        left = self.left
        if split in self.drawn:
            rows = sum(self.read(name) for name in ("train", *self.drawn))
            left = {split: rows - self._tried(split)}
        return replace(self, used=used, balanced=False, classes={}, left=left, drawn=())

    def read(self, split: str) -> int:
        """Number of rows of a split that were read."""
        return self._tried(split) + self.left.get(split, 0)

    def _tried(self, split: str) -> int:
        """Number of rows of a split that its limit leaves in it."""
        return self.used[split] + self.dropped.get(split, 0)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the task, training first."""
        return tuple(split for split in _SPLITS if split in self.used)

    @property
    def line(self) -> str:
        """Counts, balance and ignored fields in one line; empty if the task counts no rows."""
        if not self.splits:
            return ""
        parts = [f"rows: {', '.join(self._counted(split) for split in self.splits)}"]
        if self.classes:
            parts.append(f"classes: {_some(self.classes)}")
        if self.balanced:
            parts.append("batches with as many rows of each class")
        if self.ignored:
            parts.append(f"ignored fields: {', '.join(self.ignored)}")
        if self.unused:
            parts.append(f"not read: {', '.join(self.unused)}")
        if self.prior:
            shares = {word: f"{100 * share:.0f} %" for word, share in self.prior.items()}
            parts.append(f"label-word prior (subtracted): {_some(shares)}")
        if self.probabilities:
            parts.append("the network ends in a Softmax: the loss takes the logarithms of its probabilities")
        if self.by_value:
            parts.append(
                "class folders are the numbers of outputs by value (2 before 10); torchvision's ImageFolder has them "
                "by text (10 before 2), for which task.labels gives the order"
            )
        if self.guessed:
            places = dict(zip((f"LABEL_{place}" for place in range(len(self.guessed))), self.guessed, strict=True))
            parts.append(
                f"the head's classes have no names and are taken in the labels' order, {_some(places)}; a file "
                "task.labels gives another"
            )
        return "; ".join(parts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about splits that drop or truncate over a tenth of their rows, and about doubtful labels."""
        dropped = self._many(self.dropped, self._tried)
        cut = self._many(self.truncated, lambda split: self.used[split])
        sentences = []
        if dropped:
            sentences.append(
                f"{self._listed(dropped)} are dropped, because what is to be learned of them does not fit into "
                f"{self.max_length:,} tokens{self._advice(dropped)}"
            )
        if cut:
            sentences.append(
                f"{self._listed(cut)} are longer than {self.max_length:,} tokens and lose "
                f"{self.part}{self._advice(cut)}"
            )
        for label, count in self.missing.items():
            have = "1 row has" if count == 1 else f"{count:,} rows have"
            sentences.append(
                f"{have} the label {label!r}: is it a missing label? Leave them out, or list the labels in task.labels"
            )
        if self.quoted:
            have = "1 row of a TSV file has" if self.quoted == 1 else f"{self.quoted:,} rows of TSV files have"
            sentences.append(
                f"{have} a field in quotes with the quotes inside doubled, as pandas writes them: the model sees these "
                "quotes. Save the table as .csv if they are no part of the text"
            )
        if self.transparent:
            have = "1 image has" if self.transparent == 1 else f"{self.transparent:,} images have"
            sentences.append(
                f"{have} transparent parts, which lie on white here. torchvision, timm and pipelines of transformers "
                "show the colours below them, often black: save the images as RGB, as the network was trained on them"
            )
        return tuple(sentences)

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
            **({"classes": dict(self.classes)} if self.classes else {}),
        }

    def _counted(self, split: str) -> str:
        lost, cut = self.dropped.get(split, 0), self.truncated.get(split, 0)
        losses = [f"{lost:,} dropped"] if lost else []
        losses += [f"{cut:,} truncated"] if cut else []
        limit = f" at {self._limit}" if self.max_length is not None else ""
        whole = f" of {self.read(split):,}" if self.left.get(split) else ""
        name = f"{split} " if self.named else ""
        return f"{name}{self.used[split]:,}{whole}" + (f" ({', '.join(losses)}{limit})" if losses else "")

    @property
    def _limit(self) -> str:
        """The limit on a row's length in words."""
        assert self.max_length is not None
        return f"{self.max_length:,} tokens" + (", the model's positions" if self.max_length == self.positions else "")

    def _advice(self, splits: Iterable[str]) -> str:
        """A ``max_length`` that would help, if there is one, and whether the model has as many positions."""
        enough = max((self.whole.get(split, 0) for split in splits), default=0)
        if self.positions is not None and enough > self.positions:
            return f", all that the model has positions for; it would take {enough:,} to hold nine in ten whole"
        return f"; task.max_length={enough} holds nine in ten whole" if enough else ""

    def _listed(self, counts: Mapping[str, tuple[int, int]]) -> str:
        names = {split: f"{split} " if self.named else "" for split in counts}
        shares = (
            f"{names[split]}{count:,} of {rows:,} ({count / rows:.0%})" for split, (count, rows) in counts.items()
        )
        return f"rows: {', '.join(shares)}"

    def _many(self, counts: Mapping[str, int], of: Callable[[str], int]) -> dict[str, tuple[int, int]]:
        """Splits whose count is above a tenth of their rows, with both numbers."""
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
    """The smallest limit that at least nine in ten of the lengths do not exceed.

    Example:
        >>> nine_in_ten([3, 1, 9, 4, 4, 4, 4, 4, 4, 4])
        4
    """
    return sorted(lengths)[-(-9 * len(lengths) // 10) - 1]


def _counts(value: object) -> Mapping[str, int]:
    return value if isinstance(value, Mapping) else {}


def _by_name(description: Mapping[str, object]) -> Mapping[str, int]:
    """Training rows by the name of their class, where the classes have names."""
    names, labels = description.get("names"), description.get("labels")
    train = labels.get("train") if isinstance(labels, Mapping) else None
    return dict(zip(names, train, strict=True)) if isinstance(names, list) and isinstance(train, list) else {}


def _prior(description: Mapping[str, object]) -> Mapping[str, float]:
    """Shares by word, from log-probabilities in a text."""
    words, prior = description.get("words"), description.get("prior")
    if not isinstance(words, list) or not isinstance(prior, str):
        return {}
    return {word: math.exp(float(number)) for word, number in zip(words, prior.split(","), strict=True)}


def _some(values: Mapping[str, object]) -> str:
    """Names and values in a line; of many the first ones."""
    texts = [f"{name.strip()} {value}" for name, value in values.items()]
    return ", ".join(texts[:_NAMED]) + (f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else "")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()
