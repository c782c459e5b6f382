"""The user's own data: prompts with completions, conversations, or plain texts.

Rows come from JSON lines, CSV or a data set. A row is ``{"prompt": …, "completion": …}``,
``{"messages": [{"role": …, "content": …}, …]}`` or ``{"text": …}``; its fields tell which, unless the
user names the two fields. Only completions are learned. In a conversation these are the assistant's
turns (:mod:`forq.tasks.chat.conversation`). A validation or test split without a file of its own
takes one in ten training rows.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from forq.errors import ConfigError, DataError
from forq.plugins.registry import nearest
from forq.tasks import Split, Tokenizer
from forq.tasks.chat.conversation import Conversations
from forq.tasks.chat.encoding import Asked, Piece
from forq.tasks.kinds.completion import Completion, completion, splits
from forq.tasks.rows.record import Record
from forq.tasks.rows.table import read
from forq.tasks.rows.taken import Whole, sizes, taken
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
    prompt_field: str | None = None,
    completion_field: str | None = None,
    template: str | None = None,
    end: bool = True,
    new_tokens: int | None = None,
    moment: str | None = None,
    whole: Whole | None = None,
) -> Completion:
    """Read and tokenise the rows.

    Args:
        data: see :func:`forq.tasks.rows.table.read`.
        seed: seed for drawing validation and test rows and for the order of training rows.
        train_rows, validation_rows, test_rows: number of rows of each split at most; None: all. Of a split
            with a file of its own these are the first rows.
        max_length: maximum number of tokens in a row. A longer row loses the beginning of its
            prompt. If the completion does not fit, the row is dropped. Both are counted.
        prompt_field, completion_field: names of the two fields in the file; by default ``prompt`` and
            ``completion``. If either is given, every row is read from these two fields, whatever
            others it has. The texts are joined without a separator, so a completion that begins a new
            word begins with a space.
        template: path of a Jinja chat template, used in place of the tokenizer's own.
        end: teach the model to stop: append EOS to completions that do not end with an end token.
            Nothing is appended to conversations, because the template ends them.
        new_tokens: maximum number of generated tokens, for rewards; see
            :func:`forq.tasks.kinds.completion.completion`.
        moment: date and time (ISO 8601) for chat templates that show it; the default is now. A run
            keeps the moment at which it began.
        whole: the rows are only scored; see :class:`forq.tasks.rows.taken.Whole`.

    Raises:
        ConfigError: a split or a batch would be empty, or the tokenizer has no chat template for
            messages.
        DataError: the data cannot be used (file and line).
    """
    table = read(data)
    records, digest = table.rows, table.digest
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    chosen = None if whole is None else whole.of(records)
    if chosen is None:
        chosen = splits(records, seed=seed, digest=digest, limits=limits)
    source = None if template is None else _template(Path(template))
    named = prompt_field is not None or completion_field is not None
    names = (
        "prompt" if prompt_field is None else prompt_field,
        "completion" if completion_field is None else completion_field,
    )
    reader = _Reader(names, named, tokenizer, source, parsed(moment))
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
    return replace(task, unused=table.unused, quoted=table.quoted, taken=taken(sizes(records), sizes(chosen)))


def example(folder: Path) -> Path:
    """Write two hundred sums."""
    rows = ({"prompt": f"{n} and {n % 7} is", "completion": f" {n + n % 7} ."} for n in range(200))
    path = folder / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"task.template: expected a file with a chat template, but {path} cannot be read: {error}"
        ) from error


def _asked(record: Record, names: tuple[str, str], named: bool) -> tuple[Asked, tuple[str, ...]]:
    """The text of a row that is not a conversation, and the names of the fields it was read from."""
    fields, (_, completion_field) = record.fields, names
    if named:
        _require_named(record, names)
    if all(name in fields for name in names):
        prompt, answer = (_text(record, name) for name in names)
        if not answer.strip():
            raise DataError(f"{record.where}: the {completion_field} is empty")
        pieces = (Piece(prompt, scored=False), Piece(answer, scored=True))
        return Asked(pieces, fields, record.where), names
    if "text" in fields:
        text = _text(record, "text")
        if not text.strip():
            raise DataError(f"{record.where}: the text is empty")
        return Asked((Piece(text, scored=True),), fields, record.where), ("text",)
    raise DataError(
        f"{record.where}: expected 'prompt' and 'completion', or 'messages', or 'text', found "
        f"{', '.join(map(repr, fields))}; set other names with task.prompt_field and task.completion_field"
    )


def _require_named(record: Record, names: tuple[str, str]) -> None:
    """Refuse a row without one of the fields that the user names: nothing else may be read in its place."""
    for option, name in zip(("prompt_field", "completion_field"), names, strict=True):
        if name not in record.fields:
            known = list(record.fields)
            raise DataError(
                f"{record.where}: expected a field {name!r}{nearest(name, known)}, found "
                f"{', '.join(map(repr, known))}; set its name with task.{option}"
            )


def _text(record: Record, name: str) -> str:
    value = record.fields[name]
    if not isinstance(value, str):
        raise DataError(f"{record.where}: expected text in {name!r}, found {type(value).__name__}")
    return value


class _Reader:
    """Turns rows into text, and keeps track of fields that nothing reads."""

    def __init__(
        self, names: tuple[str, str], named: bool, tokenizer: Tokenizer, source: str | None, moment: datetime
    ) -> None:
        self._names, self._named, self._ignored = names, named, set[str]()
        self.template: ChatTemplate | None = None
        if source is not None or getattr(tokenizer, "chat_template", None):
            self.template = ChatTemplate(tokenizer, source, moment)
        self._chats = None if self.template is None else Conversations(self.template)
        self._moment, self._any_chat = moment, False

    def asked(self, record: Record) -> Asked:
        """The text of a row.

        Raises:
            ConfigError: the row is a conversation, but there is no chat template.
            DataError: the row cannot be used.
        """
        if self._named or "messages" not in record.fields:
            asked, used = _asked(record, self._names, self._named)
            self._ignored |= record.fields.keys() - set(used)
            return asked
        if self._chats is None:
            raise ConfigError(
                "the model's tokenizer has no chat template: name a template file (--set task.template=FILE), or give "
                "prompt and completion instead of messages"
            )
        self._any_chat = True
        return self._chats.asked(record)

    def details(self) -> dict[str, object]:
        """Entries for the task's description: ignored fields, and the rendered moment, if any."""
        ignored = sorted(self._ignored.union(self._chats.ignored if self._chats else ()))
        entries: dict[str, object] = {"ignored": ignored} if ignored else {}
        if self._any_chat and self.template is not None and self.template.tells_time:
            entries["moment"] = self._moment.isoformat()
        return entries
