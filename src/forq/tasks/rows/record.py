"""Rows with named fields, and a table of them by split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from forq.tasks import Split


class Record(NamedTuple):
    """A row.

    Attributes:
        where: its place (file and line), for errors.
        unfilled: the fields without the nulls that Arrow filled in (:mod:`forq.tasks.rows.unfilled`); None: it is not
            from Arrow.
    """

    fields: Mapping[str, object]
    where: str
    unfilled: Mapping[str, object] | None = None

    @property
    def written(self) -> Mapping[str, object]:
        """The fields as their owner wrote them."""
        return self.fields if self.unfilled is None else self.unfilled


class Table(NamedTuple):
    """The rows of a data set.

    Attributes:
        rows: rows by split; there are always training rows.
        digest: digest of the bytes that were read.
        unused: splits of the data set other than train, validation and test, and files that are not read.
        classes: names of the labels that numbers stand for, by field (``ClassLabel`` of ``datasets``), for each
            split: ``class_encode_column`` numbers the labels of every split by itself. Of rows that were in memory too,
            whose labels are names already.
        quoted: number of rows of TSV files with a field in quotes, as a writer of CSV puts them; they are read as they
            stand.
    """

    rows: dict[Split, list[Record]]
    digest: str
    unused: tuple[str, ...] = ()
    classes: Mapping[Split, Mapping[str, tuple[str, ...]]] = {}
    quoted: int = 0
