"""One classification task for every kind of model: prompts, a mask, or label sentences.

A causal model predicts the word after a prompt, a masked model the word at a mask. A bare encoder
finds the nearest label sentence. ``by`` chooses one of these ways.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Task, Tokenizer
from forq.tasks.kinds.choice import Question, choice
from forq.tasks.kinds.mask import Mask
from forq.tasks.kinds.similarity import Similarity
from forq.tasks.rows.labelled import Labelled, Reader, Row
from forq.tasks.rows.order import of_each_class
from forq.tokens.model import Kind
from forq.tokens.text import bare, frame

By = Literal["auto", "prompt", "mask", "similarity"]

_AUTO: Mapping[Kind, By] = {"causal": "prompt", "masked": "mask", "encoder": "similarity"}
_SUPPORTED: Mapping[Kind, tuple[By, ...]] = {
    "causal": ("prompt",),
    "masked": ("mask", "similarity"),
    "encoder": ("similarity",),
}


class Example(NamedTuple):
    """A text to classify, the same text as a prompt for a language model, and its class."""

    text: str
    prompt: str
    label: int


@dataclass(frozen=True, slots=True)
class Classes:
    """The names of the classes.

    Attributes:
        words: one word per class, with the leading space that joins it to the prompt.
        keep: the end of the prompt, which truncation never removes.
        sentences: one label sentence per class, for encoders.
        part: the part a prompt loses if it is too long, in words.
    """

    words: tuple[str, ...]
    keep: str
    sentences: tuple[str, ...]
    part: str


def classify(
    name: str,
    examples: Mapping[Split, Iterable[Example]],
    tokenizer: Tokenizer,
    classes: Classes,
    *,
    kind: Kind,
    by: By,
    temperature: float,
    seed: int,
    max_length: int,
    batch_rows: int,
    balanced: bool,
    ignored: tuple[str, ...] = (),
) -> Task:
    """Tokenise the examples of every split for a kind of model.

    Args:
        kind: the kind of model; see :data:`forq.tokens.model.Kind`.
        by: how the class is read from the model; ``auto`` chooses by its kind.
        temperature: divisor of the cosines, > 0; only ``similarity`` uses it.
        balanced: every batch has as many rows of each class, up to one row.

    Raises:
        ConfigError: the kind of model does not support ``by``, a word for a mask is not a single
            token, a batch would be empty, or ``max_length`` is too small.
        DataError: a split is empty.
    """
    way = _AUTO[kind] if by == "auto" else by
    if way not in _SUPPORTED[kind]:
        supported = " or ".join(_SUPPORTED[kind])
        raise ConfigError(f"task.by: expected auto or {supported} for a {_KIND_NAMES[kind]}, found {by!r}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"task.temperature: expected a positive number, found {temperature}")
    if way == "prompt":
        questions = {
            split: [Question(example.prompt, example.label) for example in texts] for split, texts in examples.items()
        }
        return choice(
            name,
            questions,
            tokenizer,
            words=classes.words,
            keep=classes.keep,
            seed=seed,
            max_length=max_length,
            batch_rows=batch_rows,
            balanced=balanced,
            part=classes.part,
            ignored=ignored,
        )
    if batch_rows < 1:
        raise ConfigError(f"batch_rows must be 1 or more, found {batch_rows}")
    encoder = _Masked(tokenizer, classes, max_length) if way == "mask" else _Bare(tokenizer, classes, max_length)
    rows = {split: tuple(encoder.row(example) for example in texts) for split, texts in examples.items()}
    for split, encoded in rows.items():
        if not encoded:
            raise DataError(f"{name}: {split} has no rows")
    description = encoder.description | ({} if way == "mask" else {"temperature": temperature})
    settings = {"task": name, "law": 1, "max_length": max_length, "batch_rows": batch_rows, **description}
    settings |= {"balanced": True} if balanced else {}  # off: the digest from before the option
    digest = hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode()).hexdigest()
    reader: Reader = encoder.reader(temperature)
    return Labelled(
        name=name,
        reader=reader,
        description=description,
        classes=len(classes.words),
        rows=rows,
        tokenizer=tokenizer,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        digest=digest,
        by_class=of_each_class(row.label for row in rows["train"]) if balanced else None,
        part=classes.part if way == "mask" else "the end of the text",
        ignored=ignored,
    )


_KIND_NAMES: Mapping[Kind, str] = {
    "causal": "causal language model",
    "masked": "masked language model",
    "encoder": "bare encoder",
}


class _Bare:
    """Encodes plain texts and one label sentence per class; a text that is too long loses its end."""

    def __init__(self, tokenizer: Tokenizer, classes: Classes, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.front, self.back = frame(tokenizer)
        self.room = max_length - len(self.front) - len(self.back)
        self.description: dict[str, object] = {"by": "similarity", "sentences": list(classes.sentences)}
        self.labels = tuple(self.framed(bare(tokenizer, sentence)) for sentence in classes.sentences)
        least = max(map(len, self.labels))
        if max_length < least:
            raise ConfigError(f"max_length must be {least} or more for {classes.sentences}, found {max_length}")

    def framed(self, tokens: list[int]) -> tuple[int, ...]:
        return (*self.front, *tokens, *self.back)

    def row(self, example: Example) -> Row:
        tokens = bare(self.tokenizer, example.text)
        return Row(self.framed(tokens[: self.room]), example.label, max(0, len(tokens) - self.room))

    def reader(self, temperature: float) -> Similarity:
        return Similarity(self.labels, temperature)


class _Masked:
    """Encodes prompts with a mask in place of the word; a prompt that is too long loses its beginning."""

    def __init__(self, tokenizer: Tokenizer, classes: Classes, max_length: int) -> None:
        mask = getattr(tokenizer, "mask_token", None)
        if mask is None:
            raise ConfigError(
                "task.by=mask: expected a tokenizer with a mask token, found none; set task.by=similarity"
            )
        self.tokenizer, self.mask = tokenizer, str(mask)
        self.token = int(getattr(tokenizer, "mask_token_id"))  # noqa: B009
        self.front, self.back = frame(tokenizer)
        self.room = max_length - len(self.front) - len(self.back)
        self.words = tuple(self._single(word) for word in classes.words)
        self.description: dict[str, object] = {"by": "mask", "words": list(classes.words)}
        least = len(bare(tokenizer, self._ask(classes.keep)))
        if self.room < least:
            needed = max_length - self.room + least
            raise ConfigError(
                f"max_length must be {needed} or more for {classes.keep!r} and a mask, found {max_length}"
            )

    def row(self, example: Example) -> Row:
        tokens = bare(self.tokenizer, self._ask(example.prompt))
        cut = max(0, len(tokens) - self.room)
        return Row((*self.front, *tokens[cut:], *self.back), example.label, cut)

    def reader(self, temperature: float) -> Mask:
        return Mask(self.token, self.words)

    def _ask(self, prompt: str) -> str:
        return f"{prompt} {self.mask}."

    def _single(self, word: str) -> int:
        tokens = bare(self.tokenizer, word)
        if len(tokens) != 1:
            raise ConfigError(
                f"the word {word!r} must be one token to stand at a mask, found {len(tokens)}; set task.by=similarity"
            )
        return tokens[0]
