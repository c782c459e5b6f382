"""Data of one's own: prompts with completions, conversations, or plain texts, from JSON lines, CSV or a data set.

A row is ``{"prompt": …, "completion": …}``, ``{"messages": [{"role": …, "content": …}, …]}`` or ``{"text": …}``, told
by its fields. Only completions are learned, and of a conversation the assistant's turns
(:mod:`forq.tasks.chat.conversation`). A split without a file of its own takes one row in ten.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.chat.conversation import Conversations
from forq.tasks.chat.encoding import Asked, Piece
from forq.tasks.kinds.completion import Completion, completion, splits
from forq.tasks.rows.table import Record, read
from forq.tokens.moment import parsed
from forq.tokens.template import ChatTemplate


def open(
    data: Path,
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_length: int = 256,
    batch_rows: int = 16,
    train_rows: int | None = None,
    validation_rows: int | None = 500,
    test_rows: int | None = 1000,
    prompt_field: str = "prompt",
    completion_field: str = "completion",
    template: str | None = None,
    end: bool = True,
    new_tokens: int | None = None,
    moment: str | None = None,
) -> Completion:
    """Read and tokenise the rows.

    Args:
        data: see :func:`forq.tasks.rows.table.read`.
        seed: of the draw of validation and test rows, and of the order of training.
        max_length: tokens of a row; longer ones lose the beginning of their prompt, and are counted; those whose
            completion does not fit are dropped, and counted.
        prompt_field, completion_field: what a file calls them. They are joined as they stand: a completion that
            begins a new word begins with a space.
        template: file of a chat template (Jinja), in place of the tokenizer's own.
        end: learn to stop: append EOS to completions that do not end with an end token. Nothing is appended to
            conversations; their template ends them.
        new_tokens: see :func:`forq.tasks.kinds.completion.completion`; for rewards.
        moment: the date and time, in ISO form, that a chat template renders if it shows them; by default the
            present. A run keeps the moment it began with.

    Raises:
        ConfigError: a split or a batch would be empty.
        DataError: the data cannot be used (file and line), or the tokenizer has no chat template for messages.
    """
    found, digest, unused = read(data)
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    chosen = splits(found, seed=seed, digest=digest, limits=limits)
    source = None if template is None else _template(Path(template))
    reader = _Reader((prompt_field, completion_field), tokenizer, source, parsed(moment))
    asked = {split: [reader.asked(record) for record in rows] for split, rows in chosen.items()}
    task = completion(
        "completion",
        asked,
        tokenizer,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        end=end,
        new_tokens=new_tokens,
        template=reader.template,
        further=reader.details(),
    )
    return replace(task, unused=unused)


def example(folder: Path) -> Path:
    """Two hundred sums."""
    rows = ({"prompt": f"{n} and {n % 7} is", "completion": f" {n + n % 7} ."} for n in range(200))
    path = folder / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"task.template: expected a file of a chat template, {path} cannot be read: {error}"
        ) from error


def _asked(record: Record, names: tuple[str, str]) -> tuple[Asked, tuple[str, ...]]:
    """The text of a row that is not a conversation, and the names of the fields it was read from."""
    fields, (asked, answered) = record.fields, names
    if asked in fields and answered in fields:
        prompt, answer = (_said(record, name) for name in names)
        if not answer.strip():
            raise DataError(f"{record.where}: the {answered} is empty")
        pieces, read_from = (Piece(prompt, scored=False), Piece(answer, scored=True)), names
        return Asked(pieces, fields, record.where), read_from
    if "text" in fields:
        text = _said(record, "text")
        if not text.strip():
            raise DataError(f"{record.where}: the text is empty")
        return Asked((Piece(text, scored=True),), fields, record.where), ("text",)
    raise DataError(
        f"{record.where}: expected {asked!r} and {answered!r}, or 'messages', or 'text'; found "
        f"{', '.join(map(repr, fields))}. Other names are given by task.prompt_field and task.completion_field"
    )


def _said(record: Record, name: str) -> str:
    value = record.fields[name]
    if not isinstance(value, str):
        raise DataError(f"{record.where}: expected text in {name!r}, found {type(value).__name__}")
    return value


class _Reader:
    """Turn rows into text, and keep track of fields that nothing reads."""

    def __init__(self, names: tuple[str, str], tokenizer: Tokenizer, source: str | None, moment: datetime) -> None:
        self._names, self._ignored = names, set[str]()
        self.template: ChatTemplate | None = None
        if source is not None or getattr(tokenizer, "chat_template", None):
            self.template = ChatTemplate(tokenizer, source, moment)
        self._chats = None if self.template is None else Conversations(self.template)
        self._moment, self._any_chat = moment, False

    def asked(self, record: Record) -> Asked:
        """The text of a row.

        Raises:
            ConfigError: a conversation, and no chat template.
            DataError: the row cannot be used.
        """
        if "messages" not in record.fields:
            asked, used = _asked(record, self._names)
            self._ignored |= record.fields.keys() - set(used)
            return asked
        if self._chats is None:
            raise ConfigError(
                "the model's tokenizer has no chat template: name a file of one (--set task.template=FILE), or give "
                "prompt and completion instead of messages"
            )
        self._any_chat = True
        return self._chats.asked(record)

    def details(self) -> dict[str, object]:
        """Entries for the task's description: ignored fields, and the rendered moment, if any."""
        ignored = sorted(self._ignored.union(self._chats.ignored if self._chats else ()))
        found: dict[str, object] = {"ignored": ignored} if ignored else {}
        if self._any_chat and self.template is not None and self.template.tells_time:
            found["moment"] = self._moment.isoformat()
        return found
