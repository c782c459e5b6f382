"""One classification task for every kind of model: prompts, a mask, label sentences, or the model's own head.

A causal model predicts the word after a prompt, a masked model the word at a mask. A bare encoder
finds the nearest label sentence, and a model with a classification head has logits of its own.
``by`` chooses one of these ways.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.kinds.choice import Choice, Prompts, Question, Row
from forq.tasks.kinds.examples import NEWEST, Classes, Example, Reading
from forq.tasks.kinds.head import Headed, called, guessed, places_in
from forq.tasks.kinds.mask import Masked
from forq.tasks.kinds.similarity import Bare
from forq.tasks.rows.classed import Classified
from forq.tasks.rows.labelled import Encoding, Labelled
from forq.tasks.rows.order import of_each_class
from forq.tokens.model import Kind

By = Literal["auto", "prompt", "mask", "similarity", "head"]

_AUTO: Mapping[Kind, By] = {"causal": "prompt", "masked": "mask", "encoder": "similarity", "classifier": "head"}
_SUPPORTED: Mapping[Kind, tuple[By, ...]] = {
    "causal": ("prompt",),
    "masked": ("mask", "similarity"),
    "encoder": ("similarity",),
    "classifier": ("head",),
}
_KIND_NAMES: Mapping[Kind, str] = {
    "causal": "causal language model",
    "masked": "masked language model",
    "encoder": "bare encoder",
    "classifier": "model with a classification head",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the classification tasks have in common.

    Attributes:
        seed: seed for the order of training rows.
        kind: the kind of model; see :data:`forq.tokens.model.Kind`.
        head: names of the classes of the model's own head; empty if it has none.
        by: how the class is read from the model; ``auto`` chooses by its kind.
        temperature: divisor of the cosines, > 0; only ``similarity`` uses it.
        balanced: every batch has as many rows of each class, up to one row.
        reading: the law of rows for a head or an encoder. Not to be chosen: a run goes on with the law of its
            description, and one whose description has none is of law 1.

    Raises:
        ConfigError: a batch would be empty, or the temperature is not positive.
    """

    seed: int
    max_length: int
    batch_rows: int
    balanced: bool
    by: By
    temperature: float
    kind: Kind
    head: tuple[str, ...] = ()
    reading: Reading = NEWEST

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"task.temperature: expected a positive number, found {self.temperature}")
        if self.batch_rows < 1:
            raise ConfigError(f"batch_rows must be 1 or more, found {self.batch_rows}")

    @property
    def way(self) -> By:
        """How the class is read.

        Raises:
            ConfigError: the kind of model does not support ``by``.
        """
        way = _AUTO[self.kind] if self.by == "auto" else self.by
        if way not in _SUPPORTED[self.kind]:
            supported = " or ".join(_SUPPORTED[self.kind])
            raise ConfigError(
                f"task.by: expected auto or {supported} for a {_KIND_NAMES[self.kind]}, found {self.by!r}"
            )
        return way


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What only some tasks say.

    Attributes:
        ignored, unused: see :class:`forq.tasks.rows.rows.Rows`.
        further: more entries for the description.
        names: the names of the classes in a score, see :class:`forq.tasks.rows.classed.Classed`.
        empty: the prompt on which the words' prior is measured; None: it is not taken out.
    """

    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    further: Mapping[str, object] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    empty: str | None = None


def with_known_prior(task: Choice | Labelled, prior: bool | str, labels: int) -> Choice | Labelled:
    """The task with the prior that an option states; it itself if the option is no text.

    Raises:
        ConfigError: the text is no list of so many numbers, or the model has no words.
    """
    if not isinstance(prior, str):
        return task
    if not isinstance(task, Choice):
        raise ConfigError("task.prior: expected a decoder, whose words have a prior; leave it out")
    try:
        numbers = tuple(float(number) for number in prior.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != labels or not all(map(math.isfinite, numbers)):
        raise ConfigError(
            f"task.prior: expected true, false, or {labels} log-probabilities with commas, one for each label, found "
            f"{prior!r}"
        )
    return task.with_prior(numbers)


def classify(
    name: str,
    examples: Mapping[Split, Iterable[Example]],
    tokenizer: Tokenizer,
    classes: Classes,
    options: Options,
    extras: Extras | None = None,
) -> Choice | Labelled:
    """Tokenise the examples of every split for a kind of model.

    Raises:
        ConfigError: the kind of model does not support ``by``, a word for a mask is not a single
            token, the head has other classes, or ``max_length`` is too small.
        DataError: a split is empty.
    """
    extras = extras or Extras()
    way, length = options.way, options.max_length
    given = {split: tuple(texts) for split, texts in examples.items()}
    for split, texts in given.items():
        if not texts:
            raise DataError(f"{name}: {split} has no rows")
    if way == "prompt":
        return _choice(name, given, tokenizer, classes, options, extras)
    encoding: Encoding
    names, further = extras.names, extras.further
    if way == "head":
        encoding = Headed(tokenizer, options.head, length, options.reading)
        places = places_in(options.head, classes.labels, ordered=classes.ordered)
        given = {split: tuple(e._replace(label=places[e.label]) for e in texts) for split, texts in given.items()}
        names = names and called(options.head, classes.labels, places)
        if guessed(options.head, classes.labels, ordered=classes.ordered):
            further = {**further, "guessed": list(classes.labels)}
    elif way == "mask":
        encoding = Masked(tokenizer, classes.words, classes.keep, classes.part, length)
    else:
        encoding = Bare(tokenizer, classes.sentences, options.temperature, length, options.reading)
    if way != "mask":
        further = {**further, "reading": options.reading}
    rows = {split: tuple(encoding.row(example) for example in texts) for split, texts in given.items()}
    return Labelled(
        name=name,
        reader=encoding.reader,
        description=encoding.description,
        classes=len(options.head if way == "head" else classes.words),
        names=names,
        further=further,
        rows=rows,
        tokenizer=tokenizer,
        seed=options.seed,
        max_length=length,
        batch_rows=options.batch_rows,
        digest=_digest(name, options, encoding.description, rows),
        by_class=_by_class(rows, options),
        part=encoding.part,
        ignored=extras.ignored,
        unused=extras.unused,
    )


def _choice(
    name: str,
    given: Mapping[Split, Sequence[Example]],
    tokenizer: Tokenizer,
    classes: Classes,
    options: Options,
    extras: Extras,
) -> Choice:
    prompts = Prompts(tokenizer, classes.words, classes.keep, options.max_length)
    rows = {
        split: tuple(prompts.row(Question(example.prompt, example.label)) for example in texts)
        for split, texts in given.items()
    }
    description: dict[str, object] = {"words": list(classes.words)}
    return Choice(
        name=name,
        words=classes.words,
        empty=None if extras.empty is None else _empty(prompts.row(Question(extras.empty, 0))),
        description=description,
        classes=len(classes.words),
        names=extras.names,
        further=extras.further,
        rows=rows,
        tokenizer=tokenizer,
        seed=options.seed,
        max_length=options.max_length,
        batch_rows=options.batch_rows,
        digest=_digest(name, options, description, rows),
        by_class=_by_class(rows, options),
        part=classes.part,
        ignored=extras.ignored,
        unused=extras.unused,
    )


def _empty(row: Row) -> Row:
    if not row.prompt:
        raise ConfigError(
            "task.prior: nothing stands before the words where the text is empty; write something behind the text "
            "into task.prompt, or set task.prior=false"
        )
    return row


def _digest(name: str, options: Options, description: Mapping[str, object], rows: object) -> str:
    settings = {"task": name, "law": 1, "max_length": options.max_length, "batch_rows": options.batch_rows}
    settings |= description
    settings |= {"balanced": True} if options.balanced else {}  # off: the digest from before the option
    return hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode()).hexdigest()


def _by_class(rows: Mapping[Split, Sequence[Classified]], options: Options) -> tuple[tuple[int, ...], ...] | None:
    return of_each_class(row.label for row in rows["train"]) if options.balanced else None
