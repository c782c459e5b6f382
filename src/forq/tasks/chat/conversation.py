"""Conversations: the chat template renders each one once, as a whole, and the assistant's turns are learned.

The tokens of a row are those of transformers' ``apply_chat_template(tokenize=True)``: only the template writes BOS and
ends. A template with ``{% generation %}`` blocks decides itself what is learned. Otherwise a turn is learned from the
end of its generation prompt to the token that ends the turn, that token included.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from forq.errors import DataError
from forq.tasks.chat.encoding import Asked, Piece
from forq.tasks.chat.turns import REASONING, Turns, Unsplit
from forq.tasks.rows.record import Record
from forq.tokens.template import ChatTemplate, Span

_LEARNED = ("weight", "train")
_HANDED = ("tools", "documents")
_TEXTS = (None, "text", "input_text", "output_text")
"""Types of a content's parts that are text; OpenAI's Responses have the last two."""
_SETTINGS = "chat_template_kwargs"
_TRIED = 20
"""How many rows are rendered again without a field that the template does not name, to see whether it reads it."""


@dataclass(slots=True)
class Conversations:
    """Render rows of ``messages``, and keep track of fields that nothing reads.

    Attributes:
        template: the chat template of the run.
        read: names of fields that are used.
        unread: names of the other fields, with the number of rows they were tried on.
    """

    template: ChatTemplate
    read: set[str] = field(default_factory=set)
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def ignored(self) -> list[str]:
        """Fields that nothing reads, in order of their names."""
        return sorted(self.unread.keys() - self.read)

    def asked(self, record: Record) -> Asked:
        """The text of a row, in pieces that are learned or not.

        Raises:
            DataError: the row is no conversation, the template cannot render it, or a turn cannot be located exactly.
        """
        messages = _messages(record)
        try:
            messages = self._texts(messages)
            fields = self._fields(record.written)
            text, spans = self._spans(messages, fields)
            self._note(record.written, messages, fields, text)
        except Unsplit as error:
            raise DataError(f"{record.where}: {error}") from error
        except Exception as error:  # a template can raise any exception
            raise DataError(f"{record.where}: the chat template refuses it: {error}") from error
        if not spans:
            raise DataError(f"{record.where}: every turn of the assistant has weight 0, so nothing is learned of it")
        return Asked(tuple(_pieces(text, spans)), record.fields, record.where, rendered=True)

    def _spans(self, messages: Sequence[Mapping[str, object]], fields: Mapping[str, object]) -> tuple[str, list[Span]]:
        turns = Turns(self.template, messages, fields)
        _require_texts(messages, turns.text)
        own = [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]
        learned = [place for place in own if _learned(messages[place])]
        if (empty := next((place for place in learned if not self._answers(messages[place])), None)) is not None:
            raise Unsplit(
                f"turn {empty + 1}: the assistant's content is empty, so that only its end would be learned; leave the "
                'turn out, or give it "weight": 0'
            )
        marked = self.template.blocks(messages, fields)
        if marked is None:
            return turns.text, [turns.learned(place) for place in learned]
        text, spans = marked
        if text != turns.text:
            raise Unsplit("the chat template writes another text where its generation blocks are looked for")
        for place in own:
            if place not in learned:
                begin, end = turns.content(place)
                rest = [span for span in spans if not (span[0] <= begin and end <= span[1])]
                if len(rest) + 1 != len(spans):
                    raise Unsplit(
                        f"turn {place + 1} has weight 0, but no single generation block of the chat template matches it"
                    )
                spans = rest
        return text, [span for span in spans if span[0] < span[1]]

    def _answers(self, turn: Mapping[str, object]) -> bool:
        """Whether a turn says anything: in its content, or in another field that the template names."""
        content = turn.get("content")
        texts = [part["text"] for part in content] if isinstance(content, list) else [content]
        fields = turn.keys() - {"role", "content", *_LEARNED}
        said = any(isinstance(text, str) and text.strip() for text in texts)
        return said or any(turn[name] and name in (*REASONING, *self.template.names) for name in fields)

    def _texts(self, messages: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """Contents the template can render: if it takes only text, a list of one text part becomes that text.

        Templates may write parts of type ``text`` alone, so all parts get this type.
        """
        contents: list[Mapping[str, object]] = []
        for place, turn in enumerate(messages):
            parts = turn.get("content")
            if isinstance(parts, list):
                if other := next((part["type"] for part in parts if part.get("type") not in _TEXTS), None):
                    raise Unsplit(
                        f"turn {place + 1}: expected parts of type 'text', found {other!r}, which a chat template may "
                        "leave out; write it as text, or leave it out"
                    )
                if not self.template.takes_parts and len(parts) != 1:
                    raise Unsplit(f"the chat template takes text, found a content of {len(parts)} parts: join them")
                texts = [{**part, "type": "text"} for part in parts]
                turn = {**turn, "content": texts if self.template.takes_parts else texts[0]["text"]}
            contents.append(turn)
        return contents

    def _fields(self, row: Mapping[str, object]) -> dict[str, object]:
        """The variables of the template that a row sets."""
        own = {name: value for name, value in row.items() if value is not None and name != "messages"}
        settings = own.pop(_SETTINGS, None) or {}
        if not isinstance(settings, Mapping):
            raise Unsplit(f"expected {_SETTINGS} to be an object, found {type(settings).__name__}")
        taken = {name: value for name, value in {**own, **settings}.items() if self._sets(name)}
        for name in _HANDED:
            if isinstance(taken.get(name), str):  # data sets store values without a fixed schema as JSON text
                taken[name] = json.loads(taken[name])
        return taken

    def _sets(self, name: str) -> bool:
        return name in self.template.variables - {"messages", "add_generation_prompt", *_tokens(self.template)}

    def _note(
        self,
        row: Mapping[str, object],
        messages: Sequence[Mapping[str, object]],
        fields: Mapping[str, object],
        text: str,
    ) -> None:
        settings = row.get(_SETTINGS)
        for name, value in row.items():
            if name not in ("messages", _SETTINGS) and value is not None:
                self._seen(name, used=name in fields)
        for name in settings if isinstance(settings, Mapping) else ():
            self._seen(f"{_SETTINGS}.{name}", used=name in fields)
        present = ((turn, name) for turn in messages for name, value in turn.items() if value is not None)
        names = {(name, turn["role"] == "assistant") for turn, name in present}
        for name, own in names:
            if name in ("role", "content") or (name in _LEARNED and own):
                continue
            label = f"messages[].{name}" + (" (not the assistant's)" if name in _LEARNED else "")
            if label in self.read or self.unread.get(label, 0) >= _TRIED:
                continue
            used = name in self.template.names and name not in _LEARNED
            if not used:
                without = [{key: value for key, value in turn.items() if key != name} for turn in messages]
                used = self.template.render(without, fields) != text
            self._seen(label, used)

    def _seen(self, name: str, used: bool) -> None:
        if used:
            self.read.add(name)
        else:
            self.unread[name] = self.unread.get(name, 0) + 1


def _tokens(template: ChatTemplate) -> Mapping[str, object]:
    """The special tokens that transformers passes to a template by name; a row cannot set them."""
    tokens: Mapping[str, object] = template.tokenizer.special_tokens_map
    return tokens


def _messages(record: Record) -> Sequence[Mapping[str, object]]:
    messages = record.written["messages"]
    if not isinstance(messages, list) or not all(_is_turn(turn) for turn in messages):
        raise DataError(
            f"{record.where}: expected messages to be a list of role and content, both texts (a content may be a list "
            "of text parts, or be missing where a turn has tool_calls)"
        )
    if not any(turn["role"] == "assistant" for turn in messages):
        raise DataError(f"{record.where}: expected a turn of the assistant, which is what is learned; found none")
    return messages


def _is_turn(turn: object) -> bool:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        return False
    content = turn.get("content")
    if isinstance(content, list):
        return all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content)
    bare = content is None and any(turn.get(name) for name in ("tool_calls", *REASONING))
    return bare or isinstance(content, str)


def _learned(turn: Mapping[str, object]) -> bool:
    """Whether an assistant turn is learned: not with ``weight`` 0 or ``train`` false.

    Raises:
        Unsplit: another value than 0 and 1.
    """
    for name in _LEARNED:
        value = turn.get(name)
        if value is not None and value not in (0, 1):
            raise Unsplit(f"expected a {name} of 0 or 1 on a turn, found {value!r}; turns are learned whole or not")
        if value is not None and not value:
            return False
    return True


def _require_texts(messages: Sequence[Mapping[str, object]], text: str) -> None:
    """Refuse a template that takes parts in some turns and writes the list itself in others.

    Raises:
        Unsplit: the rendered text holds a list of parts as Python writes it.
    """
    for place, turn in enumerate(messages):
        parts = turn.get("content")
        if isinstance(parts, list) and parts and str(parts) in text:
            raise Unsplit(
                f"turn {place + 1}: the chat template takes no parts for the role {turn['role']!r} and writes the list "
                "itself; give this turn's content as text"
            )


def _pieces(text: str, spans: Sequence[Span]) -> Iterator[Piece]:
    """Split the text into alternating pieces that are not learned and learned."""
    edges = [0, *(edge for span in sorted(spans) for edge in span), len(text)]
    for count, (begin, end) in enumerate(pairwise(edges)):
        if end < begin:
            raise Unsplit("turns of the assistant overlap in what the chat template writes")
        if end > begin:
            yield Piece(text[begin:end], scored=count % 2 == 1)
