"""Your own texts and labels: reviews, questions by kind, pairs of sentences.

Rows with a text and a label come from CSV, TSV, JSON lines or a data set of ``datasets``. A decoder is asked for the
likeliest label word after a prompt, with the words' prior taken out. An encoder compares the text with label
sentences or fills a mask. A model with a classification head is read by the head.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from forq.errors import ConfigError
from forq.tasks import Split, Tokenizer
from forq.tasks.kinds.asking import Asking
from forq.tasks.kinds.choice import Choice
from forq.tasks.kinds.classify import By, Extras, Options, classify, with_known_prior
from forq.tasks.kinds.examples import NEWEST, Example, Reading
from forq.tasks.kinds.head import nameless
from forq.tasks.kinds.labels import Labels, label_of, looks_missing
from forq.tasks.rows.labelled import Labelled
from forq.tasks.rows.record import Record
from forq.tasks.rows.stratified import stratified
from forq.tasks.rows.table import read
from forq.tasks.rows.taken import Whole, sizes, taken
from forq.tokens.model import Kind
from forq.tokens.text import require_apart


def open(
    data: Path,
    tokenizer: Tokenizer,
    *,
    seed: int,
    text: str = "text",
    second: str | None = None,
    label: str = "label",
    prompt: str | None = None,
    labels: str | None = None,
    max_length: int = 512,
    batch_rows: int = 16,
    balanced: bool = True,
    train_rows: int | None = None,
    validation_rows: int | None = 500,
    test_rows: int | None = 1000,
    by: By = "auto",
    temperature: float = 0.05,
    prior: bool | str = True,
    kind: Kind = "causal",
    head: tuple[str, ...] = (),
    reading: Reading = NEWEST,
    described: Mapping[str, object] | None = None,
    whole: Whole | None = None,
) -> Choice | Labelled:
    """Read and tokenise the rows.

    Args:
        data: see :func:`forq.tasks.rows.table.read`. A split without a file takes one in ten training
            rows, with every class's share.
        seed: seed for drawing validation and test rows and for the order of training rows.
        text, second, label: the fields of the text, of a second text, and of the label.
        prompt: the prompt, with ``{field}`` where a field's text goes; see
            :class:`forq.tasks.kinds.asking.Asking`. Written as two characters, ``\\n`` is a line's end.
        labels: path of a file with a row for each label: ``label``, and where they differ ``word`` and
            ``sentence``. By default the labels in the training rows are their own words.
        max_length: maximum number of tokens in a row. A longer prompt loses its beginning, a text for an
            encoder or a head its end, or by the tokenizer's ``truncation_side`` its beginning.
        balanced: every batch has as many rows of each class, up to one row.
        by, temperature, reading: see :class:`forq.tasks.kinds.classify.Options`.
        prior: take out what the model says of the words whatever the text is
            (:mod:`forq.tasks.kinds.prior`). True: measured once, on the model as it is before the first
            step; then a run keeps the numbers, which are written here.
        kind: the kind of model.
        head: names of the classes of the model's own head.
        described: the description of a run's task. Its classes are then the classes, whichever of them the
            rows have; ``labels`` is not read.
        whole: the rows are only scored; see :class:`forq.tasks.rows.taken.Whole`.

    Raises:
        ConfigError: a split or a batch would be empty, or labels, prompt or head do not fit.
        DataError: the data cannot be used (file and line).
    """
    asking = _asking(text, second, prompt, label)
    table = read(data, None if labels is None else Path(labels))
    named = {
        split: [label_of(record, label, table.classes.get(split, {}).get(label, ())) for record in records]
        for split, records in table.rows.items()
    }
    listed = _given(described, labels)
    numbered = table.classes.get("train", {}).get(label, ())
    if listed is None and reading > 2 and numbered and nameless(head):
        # The head's class k is the one that the number k stands for in the data.
        listed = Labels.named(numbered, ordered=True)
    known = listed or Labels.within(named["train"])
    # A label that a file, the data set's own classes or the model's head list is meant.
    sure = listed is not None or any(label in fields for fields in table.classes.values())
    meant = {name.casefold() for name in head}
    labelled = (name for names in named.values() for name in names if name.casefold() not in meant)
    doubtful = {} if sure else looks_missing(labelled)
    classes: dict[Split, list[int]] = {
        split: [known.index(name, record.where) for name, record in zip(names, table.rows[split], strict=True)]
        for split, names in named.items()
    }
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    all_of: dict[Split, list[tuple[Split, int]]] = {
        split: [(split, row) for row in range(len(labels))] for split, labels in classes.items()
    }
    places = None if whole is None else whole.of(all_of)
    if places is None:
        places = stratified(classes, seed=seed, digest=table.digest, limits=limits)
    examples = {
        split: [_example(asking, table.rows[file][row], classes[file][row]) for file, row in rows]
        for split, rows in places.items()
    }
    present = {name for records in table.rows.values() for record in records for name in record.fields}
    ignored = tuple(sorted(present - {label, *asking.fields}))
    options = Options(
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        balanced=balanced and "train" in places,
        by=by,
        temperature=temperature,
        kind=kind,
        head=head,
        reading=reading,
    )
    task = _task(
        examples, tokenizer, known, asking, options, prior, ignored=ignored, unused=table.unused, doubtful=doubtful
    )
    return replace(task, quoted=table.quoted, taken=taken(sizes(all_of), sizes(places)))


def unlabelled(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    settings: Mapping[str, object],
    described: Mapping[str, object],
    *,
    kind: Kind,
    head: tuple[str, ...] = (),
) -> Choice | Labelled:
    """Rows to classify, in the split ``test``; their labels are not read.

    Args:
        settings: options of :func:`open`.
        described: the description of a run's task, which holds its labels; or nothing.

    Raises:
        ConfigError: an option is invalid, or nothing says which labels there are.
        DataError: a row cannot be used (file and line).
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(open).parameters.items()}
    chosen: dict[str, Any] = {**defaults, **settings}
    chosen |= {"seed": 0, "balanced": False, "kind": kind, "head": head}
    options = Options(**{option.name: chosen[option.name] for option in fields(Options)})
    asking = _asking(chosen["text"], chosen["second"], chosen["prompt"], chosen["label"])
    known = _given(described, chosen["labels"]) or (Labels.named(head) if head else None)
    if known is None:
        raise ConfigError("expected the labels in a file, found none: --set task.labels=FILE")
    examples: dict[Split, list[Example]] = {"test": [_example(asking, record, 0) for record in records]}
    return _task(examples, tokenizer, known, asking, options, chosen["prior"])


def example(folder: Path) -> Path:
    """Write 220 short reviews with obvious labels."""
    path = folder / "reviews.csv"
    lines = [f'"film number {n} is {"good" if n % 2 else "bad"} .",{"good" if n % 2 else "bad"}' for n in range(220)]
    path.write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")
    return path


def _given(described: Mapping[str, object] | None, labels: str | None) -> Labels | None:
    """The labels of a run, else those in a file; None where there is neither."""
    plain = (described or {}).get("classes")
    if isinstance(plain, list):
        return Labels.of(plain)
    return None if labels is None else Labels.read(Path(labels))


def _asking(text: str, second: str | None, prompt: str | None, label: str) -> Asking:
    asking = Asking(text, second, None if prompt is None else prompt.replace("\\n", "\n"))
    if label in asking.fields:
        raise ConfigError(f"the model would be shown the label: expected texts in other fields than {label!r}")
    return asking


def _example(asking: Asking, record: Record, label: int) -> Example:
    asked = asking.asked(record)
    return Example(asked.text, asked.prompt, label, asked.plain)


def _task(
    examples: Mapping[Split, Sequence[Example]],
    tokenizer: Tokenizer,
    known: Labels,
    asking: Asking,
    options: Options,
    prior: bool | str,
    *,
    ignored: tuple[str, ...] = (),
    unused: tuple[str, ...] = (),
    doubtful: Mapping[str, int] | None = None,
) -> Choice | Labelled:
    further: dict[str, object] = {"text": asking.text, "second": asking.second, "prompt": asking.pattern}
    further |= {"classes": known.plain(), "missing": dict(doubtful or {}) or None}
    extras = Extras(
        ignored=ignored,
        unused=unused,
        further={name: value for name, value in further.items() if value is not None},
        names=known.names,
        empty=asking.empty if prior is True and options.way == "prompt" else None,
    )
    classes = known.classes(asking.keep)
    if options.way != "head":
        require_apart(tokenizer, classes.sentences if options.way == "similarity" else classes.words)
    task = classify("classify", examples, tokenizer, classes, options, extras)
    return with_known_prior(task, prior, len(known.names))
