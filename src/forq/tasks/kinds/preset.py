"""Classification tasks of known data sets: labels, words, prompt and layout are fixed, everything else is shared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Task, Tokenizer
from forq.tasks.kinds.classify import By, Extras, Options, classify, with_known_prior
from forq.tasks.kinds.examples import NEWEST, Asked, Classes, Example, Reading
from forq.tasks.rows.record import Record
from forq.tokens.model import Kind


class Limits(NamedTuple):
    """The number of rows of each split; None has its own meaning in each, see :meth:`Preset.open`."""

    train: int | None
    validation: int | None
    test: int | None


class Splits(NamedTuple):
    """The examples of each split, and the fields of the rows that nothing reads."""

    examples: dict[Split, Sequence[Example]]
    ignored: frozenset[str] | set[str]


@dataclass(frozen=True, slots=True)
class Preset:
    """A known data set.

    Attributes:
        classes: its labels, words and label sentences.
        empty: the prompt of a row without texts.
        ask: the text and the prompt of a row from its fields. It raises KeyError or ValueError if it cannot.
        label: the class of a row; it raises as ``ask`` does.
        splits: reads the examples of a folder; its other arguments are the seed and the limits.
    """

    name: str
    classes: Classes
    empty: str
    ask: Callable[[Mapping[str, object]], Asked]
    label: Callable[[Mapping[str, object]], int]
    splits: Callable[[Path, int, Limits], Splits]

    def read(self, row: Mapping[str, object]) -> Example:
        """An example from a row's fields."""
        asked = self.ask(row)
        return Example(asked.text, asked.prompt, self.label(row), asked.plain)

    def open(
        self,
        data: Path,
        tokenizer: Tokenizer,
        *,
        seed: int,
        max_length: int = 512,
        batch_rows: int = 16,
        balanced: bool = True,
        train_rows: int | None = 1000,
        validation_rows: int | None = 500,
        test_rows: int | None = None,
        by: By = "auto",
        temperature: float = 0.05,
        prior: bool | str = False,
        kind: Kind = "causal",
        head: tuple[str, ...] = (),
        reading: Reading = NEWEST,
    ) -> Task:
        """Read and tokenise the rows.

        Args:
            data: the folder.
            seed: seed for drawing training and validation rows, and for their order.
            max_length: maximum number of tokens in a row. A longer row loses the part that the
                classes name and is counted.
            batch_rows: rows per batch.
            balanced: every batch has as many rows of each class, up to one row. A class with few
                training rows repeats them. With false, all rows take part alike.
            train_rows: number of training rows; None: all rows that validation leaves.
            validation_rows: number of validation rows; None: 500.
            test_rows: number of rows from the start of the official file; None: all.
            by: how the class is read from the model: ``prompt``, ``mask``, ``similarity`` to label
                sentences, or its own ``head``. ``auto`` chooses by the kind of model.
            temperature: divisor of the cosine similarities before the softmax.
            prior: take out what a decoder says of the words whatever the text is
                (:mod:`forq.tasks.kinds.prior`), as ``classify`` does. The papers leave it in. A text
                states it, one log-probability a label, as a run's settings do.
            kind: the kind of model.
            head: names of the classes of the model's own head.
            reading: see :class:`forq.tasks.kinds.classify.Options`.

        Raises:
            ConfigError: a split would be empty or larger than the file, or an option is invalid.
            DataError: a file is missing or empty, or a row cannot be used (file and line).
        """
        limits = Limits(train_rows, validation_rows, test_rows)
        if any(rows is not None and rows < 1 for rows in limits):
            raise ConfigError(f"splits need 1 row or more, found {tuple(limits)}")
        examples, ignored = self.splits(Path(data), seed, limits)
        options = Options(
            seed=seed,
            max_length=max_length,
            batch_rows=batch_rows,
            balanced=balanced,
            by=by,
            temperature=temperature,
            kind=kind,
            head=head,
            reading=reading,
        )
        return self._task(examples, tokenizer, options, prior, tuple(sorted(ignored)))

    def unlabelled(
        self,
        records: Sequence[Record],
        tokenizer: Tokenizer,
        settings: Mapping[str, object],
        described: Mapping[str, object],
        *,
        kind: Kind,
        head: tuple[str, ...] = (),
    ) -> Task:
        """Rows to classify, in the split ``test``; their labels are not read.

        Args:
            settings: options of :meth:`open`.
            described: not used, since the labels are known.

        Raises:
            ConfigError: an option is invalid.
            DataError: a row cannot be used (file and line).
        """
        defaults = {name: parameter.default for name, parameter in inspect.signature(self.open).parameters.items()}
        chosen: dict[str, Any] = {**defaults, **settings, "balanced": False, "seed": 0, "kind": kind, "head": head}
        options = Options(**{option.name: chosen[option.name] for option in fields(Options)})
        examples: dict[Split, Sequence[Example]] = {"test": [self._asked(record) for record in records]}
        return self._task(examples, tokenizer, options, chosen["prior"])

    def _task(
        self,
        examples: Mapping[Split, Sequence[Example]],
        tokenizer: Tokenizer,
        options: Options,
        prior: bool | str,
        ignored: tuple[str, ...] = (),
    ) -> Task:
        if prior is True and options.way != "prompt":
            raise ConfigError("task.prior: expected a decoder, whose words have a prior; leave it out")
        extras = Extras(ignored=ignored, empty=self.empty if prior is True else None)
        task = classify(self.name, examples, tokenizer, self.classes, options, extras)
        return with_known_prior(task, prior, len(self.classes.words))

    def _asked(self, record: Record) -> Example:
        try:
            text, prompt, plain = self.ask(record.fields)
        except KeyError as error:
            raise DataError(f"{record.where}: expected a field {error}, found {', '.join(record.fields)}") from error
        except ValueError as error:
            raise DataError(f"{record.where}: {error}") from error
        return Example(text, prompt, 0, plain)
