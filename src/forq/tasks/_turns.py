"""Where a conversation's turns stand in its rendered text, told by how whole renderings differ.

A template is a program: it may trim contents, drop earlier reasoning, or end the last turn otherwise than the others.
So no turn is rendered alone. A turn's content stands where the text changes once it is replaced by a mark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from forq.tokens.template import ChatTemplate, Span, first, mark_for

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Fields of a turn that transformers hands to templates as its reasoning."""


class Unsplit(ValueError):
    """What a conversation teaches cannot be told exactly; the message says why."""


class Turns:
    """One conversation under one template.

    Attributes:
        text: the whole of it, rendered once.
    """

    def __init__(
        self, template: ChatTemplate, messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]
    ) -> None:
        self._template, self._messages, self._fields = template, messages, fields
        self._mark = mark_for(json.dumps([messages, dict(fields)], ensure_ascii=False, default=str))
        self._contents: dict[int, Span] = {}
        self.text = template.render(messages, fields)

    def content(self, place: int) -> Span:
        """Where the content of a turn stands.

        Raises:
            Unsplit: it is not written, or more than once.
        """
        if place not in self._contents:
            self._contents[place] = self._found(self.text, place, len(self._messages))
        return self._contents[place]

    def learned(self, place: int) -> Span:
        """What a turn of the assistant teaches: from where its generation prompt ends to the token that ends it.

        Raises:
            Unsplit: it cannot be told exactly.
        """
        try:
            content = self.content(place)
        except Unsplit:
            # Some templates write a turn's calls in place of its content.
            whole = self._between(place) if self._messages[place].get("tool_calls") else None
            if whole is None:
                raise
            return whole
        return self._begin(place, content), self._end(place, content[1])

    def _between(self, place: int) -> Span | None:
        """A turn by what is rendered before it and with it, where both are beginnings of the whole."""
        prompt, alone = self._prompt(place), self._template.render(self._messages[: place + 1], self._fields)
        if prompt is None or not len(prompt) < len(alone) or not all(map(self.text.startswith, (prompt, alone))):
            return None
        closed = alone.rstrip()
        return len(prompt), len(closed if closed.endswith(self._template.added) else alone)

    def _begin(self, place: int, content: Span) -> int:
        prompt = self._prompt(place)
        if prompt is not None:
            if self.text.startswith(prompt) and len(prompt) <= content[1]:
                return len(prompt)
            # A generation prompt may say more than the finished turn does: an opened <think>, for example.
            if common(prompt, self.text) >= content[0]:
                return content[0]
        turn = self._messages[place]
        given, written = _text(turn).strip(), self.text[slice(*content)].strip()
        # A template may drop the beginning of a content, its reasoning.
        whole = given.endswith(written) and bool(written or not given)
        if whole and not any(map(turn.get, REASONING)):
            return content[0]
        raise Unsplit(
            f"turn {place + 1}: the chat template changes earlier turns, or writes another generation prompt than the "
            "turn begins with, so that where the turn begins cannot be told exactly; give prompt and completion"
        )

    def _prompt(self, place: int) -> str | None:
        """What the model is given to write a turn, or None where the template refuses so short a conversation."""
        if place == 0:
            return None
        try:
            return self._template.render(self._messages[:place], self._fields, prompt=True)
        except Exception:  # templates raise what they like
            return None

    def _end(self, place: int, content_end: int) -> int:
        last = place + 1 == len(self._messages)
        stop = self._stop(place, content_end)
        if stop < content_end:
            raise Unsplit(f"turn {place + 1}: the chat template writes the next turn before it")
        end = "".join(self._template.end)
        if (found := first(self.text, (end,), content_end, stop)) is not None:
            return found[1]
        if end or last:
            # Some templates end the last turn with a token of its own. Behind another turn there must be a second
            # special token, the head of the next turn, or the only one is that head.
            found = first(self.text, self._template.specials, content_end, stop)
            if found and (last or first(self.text, self._template.specials, found[1], stop)):
                return found[1]
        return content_end + self._plain_end(place, content_end)

    def _stop(self, place: int, content_end: int) -> int:
        """Where the content of the next turn begins, or another place between the two turns."""
        if place + 1 == len(self._messages):
            return len(self.text)
        try:
            return self.content(place + 1)[0]
        except Unsplit:  # a turn of tool calls, for example, has no content
            return content_end + self._plain_end(place, content_end)

    def _plain_end(self, place: int, content_end: int) -> int:
        """How many characters of ordinary text end a turn, in a template without a token for it."""
        if place + 1 == len(self._messages):
            return len(self.text) - content_end
        try:
            alone = self._template.render(self._messages[: place + 1], self._fields)
        except Exception as error:  # as above
            raise Unsplit(f"turn {place + 1}: the chat template has no token that ends it: {error}") from error
        behind = alone[self._found(alone, place, place + 1)[1] :]
        return common(behind, self.text[content_end:])

    def _found(self, text: str, place: int, count: int) -> Span:
        """Where the content of a turn stands in the text of the first ``count`` messages."""
        turn = self._messages[place]
        content = turn.get("content")
        mark = [{"type": "text", "text": self._mark}] if isinstance(content, list) else self._mark
        messages = [*self._messages[:place], {**turn, "content": mark}, *self._messages[place + 1 : count]]
        other = self._template.render(messages, self._fields)
        if other.count(self._mark) != 1:
            raise Unsplit(
                f"turn {place + 1}: the chat template writes its content {other.count(self._mark)} times, so that what "
                "it teaches cannot be told exactly"
            )
        begin = common(text, other)
        end = len(text) - common(text[begin:][::-1], other[begin:][::-1])
        return begin, end


def common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _text(turn: Mapping[str, Any]) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""
