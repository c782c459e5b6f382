"""What a classification task asks: texts with their classes, and how the classes are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Reading = Literal[1, 2, 3]
"""The law of the rows that a head or an encoder reads.

3: texts as they are, with the white space around them. Texts and pairs that are too long are cut as transformers cuts
them, on the tokenizer's ``truncation_side``. A head without names has its classes in the order of the data's numbers.
2: as 3, but cut on the right whatever the tokenizer says, and classes without names in the order of the labels.
1: as 2, but without white space, and cut otherwise where the room is odd.
"""

NEWEST: Reading = 3
"""The law of new runs."""


class Example(NamedTuple):
    """A row to classify.

    Attributes:
        text: the plain text.
        prompt: the same text as a prompt for a language model.
        label: its class.
        plain: the one or two texts that a classification head reads, as the data has them; one is also what an encoder
            reads. Empty: the text.
    """

    text: str
    prompt: str
    label: int
    plain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Classes:
    """The names of the classes.

    Attributes:
        words: one word per class, with the leading space that joins it to the prompt.
        keep: the end of the prompt, which truncation never removes.
        sentences: one label sentence per class, for encoders.
        part: the part a prompt loses if it is too long, in words.
        labels: the labels in the data, or their numbers, by which a head's classes are found.
        ordered: the order of the labels is the user's, so a head without names of its own follows it.
    """

    words: tuple[str, ...]
    keep: str
    sentences: tuple[str, ...]
    part: str
    labels: tuple[str, ...]
    ordered: bool = False


class Asked(NamedTuple):
    """A row without its class; see :class:`Example`."""

    text: str
    prompt: str
    plain: tuple[str, ...] = ()
