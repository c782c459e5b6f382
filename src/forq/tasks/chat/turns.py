"""Find a conversation's turns in its rendered text by comparing whole renderings.

A template is a program. It may trim contents, drop earlier reasoning, or end the last turn differently, so a turn
cannot be rendered alone. Instead a turn's content is replaced by a mark: it stands where the rendered text changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from forq.tokens.template import ChatTemplate, Span, first, mark_for

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Fields of a turn that transformers hands to templates as its reasoning."""


class Unsplit(ValueError):
    """The text that a turn teaches cannot be determined; the message says why."""


class Turns:
    """One conversation under one template.

    Attributes:
        text: the whole conversation, rendered once.
    """

    def __init__(
        self, template: ChatTemplate, messages: Sequence[Mapping[str, object]], fields: Mapping[str, object]
    ) -> None:
        self._template, self._messages, self._fields = template, messages, fields
        self._mark = mark_for(json.dumps([messages, dict(fields)], ensure_ascii=False, default=str))
        self._contents: dict[int, Span] = {}
        self.text = template.render(messages, fields)

    def content(self, place: int) -> Span:
        """The span of a turn's content.

        Raises:
            Unsplit: the template does not write the content exactly once.
        """
        if place not in self._contents:
            self._contents[place] = self._locate(self.text, place, len(self._messages))
        return self._contents[place]

    def learned(self, place: int) -> Span:
        """The span to learn of an assistant turn: from the end of its generation prompt to its end token, inclusive.

        Raises:
            Unsplit: the turn cannot be located exactly.
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
        """The span of a turn between the rendering before it and the one with it, if both are prefixes of the whole."""
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
            "turn begins with, so that the beginning of the turn cannot be located exactly; give prompt and completion"
        )

    def _prompt(self, place: int) -> str | None:
        """The text the model is given to write a turn; None if the template cannot render the turns before it."""
        if place == 0:
            return None
        try:
            return self._template.render(self._messages[:place], self._fields, prompt=True)
        except Exception:  # a template can raise any exception
            return None

    def _end(self, place: int, content_end: int) -> int:
        last = place + 1 == len(self._messages)
        stop = self._stop(place, content_end)
        if stop < content_end:
            raise Unsplit(f"turn {place + 1}: the chat template writes the next turn before it")
        end = "".join(self._template.end)
        if (end_token := first(self.text, (end,), content_end, stop)) is not None:
            return end_token[1]
        if end or last:
            # Some templates end the last turn with a token of its own. Behind another turn there must be a second
            # special token, the head of the next turn, or the only one is that head.
            end_token = first(self.text, self._template.specials, content_end, stop)
            if end_token and (last or first(self.text, self._template.specials, end_token[1], stop)):
                return end_token[1]
        return content_end + self._plain_end(place, content_end)

    def _stop(self, place: int, content_end: int) -> int:
        """A position between this turn's end and the content of the next turn."""
        if place + 1 == len(self._messages):
            return len(self.text)
        try:
            return self.content(place + 1)[0]
        except Unsplit:  # a turn of tool calls, for example, has no content
            return content_end + self._plain_end(place, content_end)

    def _plain_end(self, place: int, content_end: int) -> int:
        """Length of the text that ends a turn, for templates without an end token."""
        if place + 1 == len(self._messages):
            return len(self.text) - content_end
        try:
            alone = self._template.render(self._messages[: place + 1], self._fields)
        except Exception as error:  # a template can raise any exception
            raise Unsplit(f"turn {place + 1}: the chat template has no token that ends it: {error}") from error
        behind = alone[self._locate(alone, place, place + 1)[1] :]
        return common(behind, self.text[content_end:])

    def _locate(self, text: str, place: int, count: int) -> Span:
        """The span of a turn's content in the text of the first ``count`` messages."""
        turn = self._messages[place]
        content = turn.get("content")
        mark = [{"type": "text", "text": self._mark}] if isinstance(content, list) else self._mark
        messages = [*self._messages[:place], {**turn, "content": mark}, *self._messages[place + 1 : count]]
        other = self._template.render(messages, self._fields)
        if other.count(self._mark) != 1:
            raise Unsplit(
                f"turn {place + 1}: the chat template writes its content {other.count(self._mark)} times, so that it "
                "cannot be located exactly"
            )
        begin = common(text, other)
        end = len(text) - common(text[begin:][::-1], other[begin:][::-1])
        return begin, end


def common(first_text: str, second_text: str) -> int:
    """Length of the common prefix of two texts."""
    low, high = 0, min(len(first_text), len(second_text))
    while low < high:
        middle = (low + high + 1) // 2
        if first_text[low:middle] == second_text[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _text(turn: Mapping[str, object]) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content if isinstance(content, str) else ""
