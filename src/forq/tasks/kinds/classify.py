"""One classification task for every kind of model: prompts, a mask, or label sentences.

A causal model is asked for the word after a prompt, a masked one for the word at a mask, a bare encoder for the
nearest label sentence. ``by`` insists on one of them.
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
from forq.tokens.model import Kind
from forq.tokens.text import bare, frame

By = Literal["auto", "prompt", "mask", "similarity"]

_AUTO: Mapping[Kind, By] = {"causal": "prompt", "masked": "mask", "encoder": "similarity"}
_CAN: Mapping[Kind, tuple[By, ...]] = {
    "causal": ("prompt",),
    "masked": ("mask", "similarity"),
    "encoder": ("similarity",),
}


class Example(NamedTuple):
    """A text to classify: alone, as the prompt a language model goes on from, and its class."""

    text: str
    prompt: str
    label: int


@dataclass(frozen=True, slots=True)
class Classes:
    """How the classes are named.

    Attributes:
        words: one a class, with the space in front that joins it to the prompt.
        keep: the end of the prompt that no truncation may touch.
        sentences: one a class, for encoders.
        part: what a prompt loses that is too long, in words.
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
    ignored: tuple[str, ...] = (),
) -> Task:
    """Tokenise the examples of every split for a kind of model.

    Args:
        kind: of the model; see :data:`forq.tokens.model.Kind`.
        by: ``auto`` is what suits the kind.
        temperature: what cosines are divided by; > 0, read by ``similarity`` alone.

    Raises:
        ConfigError: the kind of model cannot be asked that way, a word at a mask is not one token, a batch would
            be empty, or ``max_length`` leaves no room.
        DataError: a split is empty.
    """
    way = _AUTO[kind] if by == "auto" else by
    if way not in _CAN[kind]:
        can = " or ".join(_CAN[kind])
        raise ConfigError(f"task.by: expected auto or {can} for a {_SAID[kind]}, found {by!r}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"task.temperature: expected a positive number, found {temperature}")
    if way == "prompt":
        questions = {
            split: [Question(example.prompt, example.label) for example in found] for split, found in examples.items()
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
            part=classes.part,
            ignored=ignored,
        )
    if batch_rows < 1:
        raise ConfigError(f"batch_rows must be 1 or more, found {batch_rows}")
    encoder = _Masked(tokenizer, classes, max_length) if way == "mask" else _Bare(tokenizer, classes, max_length)
    rows = {split: tuple(encoder.row(example) for example in found) for split, found in examples.items()}
    for split, found in rows.items():
        if not found:
            raise DataError(f"{name}: {split} has no rows")
    said = encoder.said | ({} if way == "mask" else {"temperature": temperature})
    settings = {"task": name, "law": 1, "max_length": max_length, "batch_rows": batch_rows, **said}
    digest = hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode()).hexdigest()
    reader: Reader = encoder.reader(temperature)
    return Labelled(
        name=name,
        reader=reader,
        said=said,
        classes=len(classes.words),
        rows=rows,
        tokenizer=tokenizer,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        digest=digest,
        part=classes.part if way == "mask" else "the end of the text",
        ignored=ignored,
    )


_SAID: Mapping[Kind, str] = {
    "causal": "causal language model",
    "masked": "masked language model",
    "encoder": "bare encoder",
}


class _Bare:
    """Texts as they are, which lose their end when they are too long, beside one sentence a class."""

    def __init__(self, tokenizer: Tokenizer, classes: Classes, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.front, self.back = frame(tokenizer)
        self.room = max_length - len(self.front) - len(self.back)
        self.said: dict[str, object] = {"by": "similarity", "sentences": list(classes.sentences)}
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
    """Prompts with a mask where the word would be, which lose their beginning when they are too long."""

    def __init__(self, tokenizer: Tokenizer, classes: Classes, max_length: int) -> None:
        mask = getattr(tokenizer, "mask_token", None)
        if mask is None:
            raise ConfigError("the tokenizer has no mask token: ask by=similarity")
        self.tokenizer, self.mask = tokenizer, str(mask)
        self.token = int(getattr(tokenizer, "mask_token_id"))  # noqa: B009
        self.front, self.back = frame(tokenizer)
        self.room = max_length - len(self.front) - len(self.back)
        self.words = tuple(self._single(word) for word in classes.words)
        self.said: dict[str, object] = {"by": "mask", "words": list(classes.words)}
        least = len(bare(tokenizer, self._ask(classes.keep)))
        if self.room < least:
            needed = max_length - self.room + least
            raise ConfigError(f"max_length must be {needed} or more for {classes.keep!r} and a mask")

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
                f"the word {word!r} must be one token to stand at a mask, found {len(tokens)}: ask by=similarity"
            )
        return tokens[0]
