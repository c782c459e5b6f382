"""Labels of one's own: found in the data, or given in a small file with a word and a sentence for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forq.errors import ConfigError, DataError
from forq.tasks.kinds.examples import Classes
from forq.tasks.kinds.label_order import in_order
from forq.tasks.rows.record import Record
from forq.tasks.rows.table import SUFFIXES, content_of, records

_COLUMNS = ("label", "word", "sentence")
_NAMED = 8
_MISSING = frozenset(("nan", "null", "none", "n/a", "na", "<na>", "#n/a", "-", "?"))
"""What programs and people write into a table in place of a missing value, in small letters."""

_NO_CLASS = "-1"
"""What programs write for no class where classes are counted."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a data set, in the order of their classes.

    Attributes:
        names: the labels as the data writes them.
        words: what a language model answers, without a space in front.
        sentences: what an encoder compares a text with.
        ordered: the order is the user's.

    Raises:
        ConfigError: there are fewer than two labels, a word or sentence is empty or has several lines, or
            two labels share one.
    """

    names: tuple[str, ...]
    words: tuple[str, ...]
    sentences: tuple[str, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise ConfigError(f"expected two labels or more, found {len(self.names)}: {listed(self.names)}")
        for what, texts in (("word", self.words), ("sentence", self.sentences)):
            for name, text in zip(self.names, texts, strict=True):
                if not text or len(text.splitlines()) > 1:
                    raise ConfigError(
                        f"label {name!r}: expected one row of words as its {what}, found {text!r}; give words in a "
                        "file with the columns label and word, task.labels=FILE"
                    )
            if twice := next((text for place, text in enumerate(texts) if text in texts[:place]), None):
                raise ConfigError(f"two labels have the {what} {twice!r}; give them others in a file, task.labels=FILE")
        if twice := next((name for place, name in enumerate(self.names) if name in self.names[:place]), None):
            raise ConfigError(f"the label {twice!r} is listed twice; remove one")

    @classmethod
    def named(cls, names: Sequence[str], *, ordered: bool = False) -> Labels:
        """Labels that are their own words."""
        words = tuple(" ".join(name.replace("_", " ").split()) if len(name.split("\n")) < 2 else name for name in names)
        return cls(tuple(names), words, words, ordered)

    @classmethod
    def within(cls, labels: Sequence[str]) -> Labels:
        """The labels of the training rows, in the order of :func:`forq.tasks.kinds.label_order.in_order`.

        Raises:
            DataError: all rows have the same label, each row has its own, or a number has two spellings.
        """
        names = set(labels)
        if len(names) < 2:
            raise DataError(f"expected two labels or more in the training rows, found only {listed(names)}")
        if len(names) == len(labels) and len(labels) > 2:
            raise DataError(
                f"every one of {len(labels)} training rows has a label of its own, {listed(sorted(names))}; name the "
                "field of the label with task.label=FIELD"
            )
        return cls.named(in_order(names))

    @classmethod
    def read(cls, path: Path) -> Labels:
        """The labels in a file: rows with ``label`` and, where they are given, ``word`` and ``sentence``.

        Raises:
            ConfigError: the file has other columns.
            DataError: the file cannot be read, or a value is neither text nor an integer.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"task.labels: expected a file of {', '.join(SUFFIXES)}, found {path}")
        rows = records(content_of(path, "a file of labels for task.labels"), path)
        names, words, sentences = list[str](), list[str](), list[str]()
        for row in rows:
            if "label" not in row.fields or (unknown := row.fields.keys() - set(_COLUMNS)):
                found = ", ".join(sorted(row.fields if "label" not in row.fields else unknown))
                raise ConfigError(f"{row.where}: expected the columns {', '.join(_COLUMNS)}, found {found}")
            name = named(row.fields["label"], row.where)
            word = _given(row, "word") or cls.named((name, f"not {name}")).words[0]
            names.append(name)
            words.append(word)
            sentences.append(_given(row, "sentence") or word)
        return cls(tuple(names), tuple(words), tuple(sentences), ordered=True)

    @classmethod
    def of(cls, plain: Sequence[Mapping[str, str]]) -> Labels:
        """The labels that :meth:`plain` wrote, in the order of their classes."""
        columns = zip(*((row["label"], row["word"], row["sentence"]) for row in plain), strict=True)
        names, words, sentences = (tuple(column) for column in columns)
        return cls(names, words, sentences, ordered=True)

    def plain(self) -> list[dict[str, str]]:
        """The labels for a journal's header."""
        rows = zip(self.names, self.words, self.sentences, strict=True)
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]

    def index(self, name: str, where: str) -> int:
        """The class of a label.

        Raises:
            DataError: it is none of the labels.
        """
        if name not in self.names:
            raise DataError(
                f"{where}: expected a label among {listed(self.names)}, found {name!r}; mend the row, or list the "
                "labels in a file, task.labels=FILE"
            )
        return self.names.index(name)

    def classes(self, keep: str) -> Classes:
        """The labels as the core of classification takes them.

        Args:
            keep: the end of the prompt. A word is joined to it by a space, unless it ends with white space.
        """
        space = "" if keep[-1:].isspace() else " "
        return Classes(
            words=tuple(space + word for word in self.words),
            keep=keep,
            sentences=self.sentences,
            part="the beginning of the prompt",
            labels=self.names,
            ordered=self.ordered,
        )


def looks_missing(labels: Iterable[str]) -> dict[str, int]:
    """Number of rows of each label that may stand for a missing one; −1 does beside several whole numbers.

    Example:
        >>> looks_missing(["good", "NaN", "bad", "NaN"]), looks_missing(["0", "1", "-1"]), looks_missing(["-1", "1"])
        ({'NaN': 2}, {'-1': 1}, {})
    """
    counts = Counter(labels)
    others = counts.keys() - {_NO_CLASS}
    counted = len(others) > 1 and all(name.isdecimal() for name in others)
    return {
        name: count for name, count in counts.items() if name.casefold() in _MISSING or (counted and name == _NO_CLASS)
    }


def label_of(record: Record, field: str, classes: Sequence[str] = ()) -> str:
    """The label of a row.

    Args:
        classes: the names of the labels, where the data gives numbers that stand for them.

    Raises:
        DataError: the row has no label.
    """
    if field not in record.fields:
        raise DataError(
            f"{record.where}: expected a label in {field!r}, found {listed(record.fields)}; name the field with "
            "task.label=FIELD"
        )
    value = record.fields[field]
    return class_name(value, classes, record.where) if classes and type(value) is int else named(value, record.where)


def class_name(number: int, classes: Sequence[str], where: str) -> str:
    """The name of the label that a number stands for.

    Raises:
        DataError: it stands for none; ``datasets`` has −1 for a row without a label.
    """
    if not 0 <= number < len(classes):
        raise DataError(
            f"{where}: expected a label 0 … {len(classes) - 1}, found {number}; leave out rows without a label"
        )
    return classes[number]


def named(value: object, where: str, what: str = "label") -> str:
    """A label, or its word or sentence, as text.

    Raises:
        DataError: it is neither text nor an integer, or it is empty.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: expected a {what}, text or an integer, found {value!r}")
    return value.strip()


def _given(row: Record, column: str) -> str:
    """The value in a column of a file of labels; empty if there is none."""
    value = row.fields.get(column)
    # 0 and false are words; only null and blank text leave a column out.
    return "" if value is None or (isinstance(value, str) and not value.strip()) else named(value, row.where, column)


def listed(names: Iterable[str]) -> str:
    """Some names as text."""
    texts = [repr(name) for name in names]
    return ", ".join(texts[:_NAMED]) + (f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else "")
