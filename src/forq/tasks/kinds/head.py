"""Classification by a model's own head (``…ForSequenceClassification`` of transformers), encoder or decoder.

An encoder's head reads the states of the first token, a decoder's those of the last token that is no
padding. Two texts are joined as the tokenizer joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from forq.errors import ConfigError
from forq.tasks import Tokenizer
from forq.tasks.kinds.examples import NEWEST, Example, Reading
from forq.tasks.kinds.pair_lengths import kept, kept_before
from forq.tasks.rows.labelled import Pair, Row
from forq.tasks.rows.sentences import Texts, hidden, only
from forq.tokens.batches import cut
from forq.tokens.pretrained import pretrained
from forq.tokens.text import bare, frame, keeps_end, pair_frame, shortened, unframed


@dataclass(frozen=True, slots=True)
class Head:
    """Reads the class from the logits of the model's own head."""

    def learned(self, tokens: Sequence[int]) -> tuple[bool, ...]:
        """False for every token: the head reads the whole text."""
        return (False,) * len(tokens)

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """The head's logits: fp32 [rows, classes]."""
        parts = dict(model.named_children())
        if "score" in parts:
            return _of_decoder(model, parts["score"], batch)
        return _of_encoder(model, parts, hidden(model, batch)).float()


class Headed:
    """Encodes a text, or two texts, for a head; where they are too long, the longer text loses its end.

    With the tokenizer's ``truncation_side`` left it loses its beginning, as in transformers.

    Args:
        names: the names of the head's classes.
        reading: the law of the rows.

    Raises:
        ConfigError: the head has no two classes, or ``max_length`` is too small.
    """

    reader = Head()

    def __init__(
        self, tokenizer: Tokenizer, names: tuple[str, ...], max_length: int, reading: Reading = NEWEST
    ) -> None:
        if len(names) < 2:
            raise ConfigError(f"expected a classification head of 2 classes or more, found {len(names)}: {names}")
        self.tokenizer, self.max_length, self.reading = tokenizer, max_length, reading
        self.front, self.back = frame(tokenizer)
        self.keeps_end = reading > 2 and keeps_end(tokenizer)
        self.part = f"the {'beginning' if self.keeps_end else 'end'} of the longer text"
        if max_length < len(self.front) + len(self.back) + 1:
            least = len(self.front) + len(self.back) + 1
            raise ConfigError(f"max_length must be {least} or more for a text, found {max_length}")
        self.description: dict[str, object] = {"by": "head", "names": list(names)}

    def row(self, example: Example) -> Row | Pair:
        """The tokens of an example."""
        given = example.plain or (example.text,)
        text, *more = map(str.strip, given) if self.reading == 1 else given
        first = bare(self.tokenizer, text)
        if not more:
            first = unframed(first, self.front, self.back)
            room = self.max_length - len(self.front) - len(self.back)
            inner = shortened(first, room, keeps_end=self.keeps_end)
            return Row((*self.front, *inner, *self.back), example.label, len(first) - len(inner))
        second, around = bare(self.tokenizer, more[0]), pair_frame(self.tokenizer)
        room = self.max_length - around.length
        if room < 2:
            raise ConfigError(f"max_length must be {around.length + 2} or more for two texts, found {self.max_length}")
        lost = max(0, len(first) + len(second) - room)
        first, second = self._cut(first, second, room)
        tokens = (*around.front, *first, *around.middle, *second, *around.back)
        begins = len(tokens) - len(second) - len(around.back)
        return Pair(tokens, example.label, lost, begins if around.typed else len(tokens))

    def _cut(self, first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
        """Two texts without the tokens that there is no room for."""
        if self.reading == 1:
            left, right = kept_before(len(first), len(second), room)
        else:
            left, right = kept(len(first), len(second), room, fast=getattr(self.tokenizer, "is_fast", True))
        return shortened(first, left, keeps_end=self.keeps_end), shortened(second, right, keeps_end=self.keeps_end)


def places_in(head: Sequence[str], labels: Sequence[str], *, ordered: bool) -> tuple[int, ...]:
    """The class of the head for each label: by name, or by number.

    Labels whose names the head does not know follow the head's order, if the user gave their order or
    the head's classes have no names (``LABEL_0``, …).

    Raises:
        ConfigError: the head has other classes than the labels.
    """
    known = {name.casefold(): place for place, name in enumerate(head)}
    if len(known) == len(head) and all(label.casefold() in known for label in labels):
        return tuple(known[label.casefold()] for label in labels)
    if len(labels) != len(head):
        raise ConfigError(
            f"expected as many labels as the model's head has classes, {len(head)} ({', '.join(head)}), found "
            f"{len(labels)} ({', '.join(labels)}); take a model with another head, or other labels"
        )
    if _numbers(head, labels):
        return tuple(map(int, labels))
    if ordered or nameless(head):
        return tuple(range(len(head)))
    raise ConfigError(
        f"expected labels that the model's head knows (id2label: {', '.join(head)}), found {', '.join(labels)}; name "
        "them in the order of the head's classes in a file, task.labels=FILE"
    )


def called(head: Sequence[str], labels: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    """What the head's classes are called: by the labels if the head has no such names, else by the head.

    Labels that are the numbers of the head's classes give way to its names.

    Args:
        places: the class of the head for each label, from :func:`places_in`.
    """
    own = dict(zip(places, labels, strict=True))
    known = all(head[place].casefold() == label.casefold() for place, label in own.items())
    if (known or _numbers(head, labels)) and not nameless(head):
        return tuple(head)
    return tuple(own.get(place, name) for place, name in enumerate(head))


def guessed(head: Sequence[str], labels: Sequence[str], *, ordered: bool) -> bool:
    """Whether nothing says which label belongs to which class of a head: it has no names, and the labels none of its
    classes' names or numbers. Then they follow each other."""
    own = {name.casefold() for name in head}
    known = all(label.casefold() in own for label in labels) or _numbers(head, labels)
    return nameless(head) and not (ordered or known)


def _numbers(head: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether the labels are the numbers of the head's classes."""
    return sorted(labels) == sorted(map(str, range(len(head))))


def nameless(head: Sequence[str]) -> bool:
    """Whether a configuration has a head and only counts its classes."""
    return bool(head) and all(name == f"LABEL_{place}" for place, name in enumerate(head))


class _Heads(Protocol):
    """The parts of transformers' classification models that are called one by one."""

    @property
    def classifier(self) -> nn.Module: ...


def _of_encoder(model: nn.Module, parts: dict[str, nn.Module], states: Tensor) -> Tensor:
    """The logits of an encoder's head from its last hidden states; dropout does nothing in eval mode."""
    pooler = getattr(pretrained(model).base_model, "pooler", None)
    if pooler is not None:  # BERT
        states = pooler(states)
    elif "pre_classifier" in parts:  # DistilBERT
        states = torch.relu(parts["pre_classifier"](states[:, 0]))
    logits: Tensor = cast(_Heads, model).classifier(states)
    return logits


def _of_decoder(model: nn.Module, score: nn.Module, batch: Texts) -> Tensor:
    """The logits at the last token that is no padding, as transformers finds it."""
    lm = pretrained(model)
    if lm.training:
        raise ConfigError("the model is in training mode, dropout differs between + and −: call model.eval()")
    limit = getattr(lm.config, "max_position_embeddings", None)
    if limit is not None and max(batch.lengths) > limit:
        raise ConfigError(f"rows of {max(batch.lengths)} tokens, but the model has {limit} positions: lower max_length")
    pad = getattr(lm.config, "pad_token_id", None)
    groups, found = cut(batch.lengths, batch.most_tokens), []
    for rows in groups:
        some = only(batch, rows)
        ends = torch.tensor(some.lengths)
        place = torch.arange(some.input_ids.shape[1])
        real = (place < ends[:, None]) & (some.input_ids != (-1 if pad is None else pad))
        last = torch.where(real, place, -1).max(dim=1).values
        last = torch.where(last < 0, ends - 1, last)
        # No mask is needed: rows are padded on the right, behind the token that is read.
        states = lm.base_model(input_ids=some.input_ids.to(lm.device), use_cache=False).last_hidden_state
        found.append(score(states[torch.arange(len(rows)), last.to(states.device)]).float())
    order = torch.tensor([row for rows in groups for row in rows]).argsort()
    return torch.cat(found)[order.to(lm.device)]
