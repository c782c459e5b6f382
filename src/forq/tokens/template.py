"""A chat template, rendered by transformers, and its properties that trial renderings reveal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser

from forq.errors import ConfigError
from forq.tokens.moment import NOW, fixed

Message = Mapping[str, object]
Span = tuple[int, int]
"""Start and end of a stretch of text, in characters; the end is exclusive."""

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MARKS = "\ue000\ue001\ue002\ue003\uf8ff"
"""Private-use characters; a character replaces a turn's content to find where the template writes it."""


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """A tokenizer's chat template, or a template that replaces it.

    Attributes:
        tokenizer: the transformers tokenizer that renders it.
        source: a Jinja text to use instead of the tokenizer's template.
        moment: the date and time the template renders; None: the present.
    """

    tokenizer: Any
    source: str | None = None
    moment: datetime | None = None

    def text(self, tools: object = None) -> str:
        """The Jinja text; some tokenizers have a separate template for conversations with tools."""
        text: str = self.tokenizer.get_chat_template(self.source, tools)
        return text

    def render(self, messages: Sequence[Message], fields: Mapping[str, object], *, prompt: bool = False) -> str:
        """Render a conversation; with ``prompt``, add the beginning of the assistant's next turn.

        Args:
            fields: further variables of the template, ``tools`` and ``documents`` among them.

        Raises:
            jinja2.TemplateError, TypeError, …: any error of the template.
        """
        text: str = self.tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=prompt,
            **{**fields, "chat_template": self._rendered(fields.get("tools"))},
        )
        return text

    def blocks(self, messages: Sequence[Message], fields: Mapping[str, object]) -> tuple[str, list[Span]] | None:
        """The rendered text and the spans of its ``{% generation %}`` blocks; None if the template has none.

        Raises:
            As :meth:`render`.
        """
        template = self._rendered(fields.get("tools"))
        if _GENERATION.search(template) is None:
            return None
        from transformers.utils.chat_template_utils import render_jinja_template

        present = [{name: value for name, value in message.items() if value is not None} for message in messages]
        texts, spans = render_jinja_template(
            conversations=[present],
            return_assistant_tokens_mask=True,
            **{**self.tokenizer.special_tokens_map, **fields, "chat_template": template},
        )
        return texts[0], [(start, end) for start, end in spans[0]]

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names of variables that the template reads and does not set."""
        return frozenset(name for tree in self._trees for name in jinja2.meta.find_undeclared_variables(tree)) - {NOW}

    @cached_property
    def names(self) -> frozenset[str]:
        """All names and constant texts in the template; they include every field that it reads by name."""
        names: set[object] = set()
        for tree in self._trees:
            names |= {node.name for node in tree.find_all(jinja2.nodes.Name)}
            names |= {node.attr for node in tree.find_all(jinja2.nodes.Getattr)}
            names |= {node.value for node in tree.find_all(jinja2.nodes.Const)}
        return frozenset(name for name in names if isinstance(name, str))

    @property
    def tells_time(self) -> bool:
        """Whether the template reads the date or time."""
        return NOW in self.names

    @cached_property
    def end(self) -> tuple[str, ...]:
        """The tokens, usually a single one, that follow the content of an assistant's turn."""
        mark = _MARKS[0]
        try:
            text = self.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}], {})
        except Exception:  # the template wants another kind of conversation
            return ()
        behind = text.rpartition(mark)[2] if mark in text else ""
        tokens: list[str] = []
        place = first(behind, self.added)
        while place is not None and (not tokens or place[0] == 0):
            tokens.append(behind[slice(*place)])
            behind = behind[place[1] :]
            place = first(behind, self.added)
        return tuple(tokens)

    @cached_property
    def begins(self) -> bool:
        """Whether the template writes the tokenizer's BOS itself."""
        bos: str | None = getattr(self.tokenizer, "bos_token", None)
        if not bos:
            return False
        for turns in ([{"role": "user", "content": "a"}], [{"role": "system", "content": "a"}]):
            try:
                return self.render(turns, {}).lstrip().startswith(bos)
            except Exception:  # as above
                continue
        return False

    @cached_property
    def takes_parts(self) -> bool:
        """Whether the template supports a content that is a list of text parts."""
        mark = _MARKS[0]
        try:
            text = self.render([{"role": "user", "content": [{"type": "text", "text": mark}]}], {})
        except Exception:  # as above
            return False
        return mark in text and re.search(rf"['\"]text['\"]\s*:\s*['\"]{mark}", text) is None

    @cached_property
    def added(self) -> tuple[str, ...]:
        """All added tokens that are not white space; a template may write any of them."""
        known = {*self.specials, *map(str, self._decoder.values())}
        return tuple(token for token in known if token and not token.isspace())

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """The special tokens."""
        marked = [str(token) for token in self._decoder.values() if token.special]
        return tuple({*marked, *map(str, self.tokenizer.all_special_tokens)})

    @cached_property
    def _decoder(self) -> Mapping[int, Any]:
        decoder: Mapping[int, Any] = getattr(self.tokenizer, "added_tokens_decoder", {})
        return decoder

    @cached_property
    def _trees(self) -> list[jinja2.nodes.Template]:
        """The parsed template, and that for conversations with tools if the tokenizer has a separate one."""
        reader = jinja2.Environment(extensions=[jinja2.ext.loopcontrols, _Generation])
        try:
            return [reader.parse(text) for text in {self.text(), self.text([{}])}]
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", "?")
            raise ConfigError(f"the chat template is no Jinja template: line {line}: {error}") from error

    def _rendered(self, tools: object) -> str:
        text = self.text(tools)
        return fixed(text, self.moment) if self.moment is not None and self.tells_time else text


def mark_for(text: str) -> str:
    """A character that does not occur in the text and can replace a turn's content.

    Raises:
        ValueError: the text holds all such characters.
    """
    mark = next((mark for mark in _MARKS if mark not in text), None)
    if mark is None:
        raise ValueError("the conversation holds every private-use character that could mark a turn")
    return mark


def first(text: str, tokens: Sequence[str], start: int = 0, stop: int | None = None) -> Span | None:
    """The span of the first token in ``text[start:stop]``; the longest if several start at the same place."""
    stop = len(text) if stop is None else stop
    places = [(text.find(token, start, stop), -len(token)) for token in tokens if token]
    matches = [place for place in places if place[0] >= 0]
    if not matches:
        return None
    begin, length = min(matches)
    return begin, begin - length


class _Generation(jinja2.ext.Extension):
    """Parses transformers' ``{% generation %}`` blocks as the statements inside them."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
