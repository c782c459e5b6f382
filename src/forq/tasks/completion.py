"""Data of one's own: prompts with completions, conversations, or plain texts, from JSON lines, CSV or a data set.

A row is ``{"prompt": …, "completion": …}``, ``{"messages": [{"role": …, "content": …}, …]}`` or ``{"text": …}``, told
by its fields. Only completions are learned, and of a conversation the assistant's turns, laid out by the model's own
chat template. What has no validation or test file of its own gives one row in ten to each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from forq.core import ConfigError, DataError
from forq.tasks import Split, Tokenizer
from forq.tasks._completion import Asked, Completion, Piece, completion, splits
from forq.tasks._table import Record, read


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
) -> Completion:
    """Read and tokenise the rows.

    Args:
        data: see :func:`forq.tasks._table.read`.
        seed: of the draw of validation and test rows, and of the order of training.
        max_length: tokens of a row; longer ones lose the beginning of their prompt, and are counted; those whose
            completion does not fit are dropped, and counted.
        prompt_field, completion_field: what a file calls them. They are joined as they stand: a completion that
            begins a new word begins with a space.
        template: file of a chat template (Jinja), in place of the tokenizer's own.
        end: learn to stop: the tokenizer's end of text follows the completion.
        new_tokens: see :func:`forq.tasks._completion.completion`; for rewards.

    Raises:
        ConfigError: a split or a batch would be empty.
        DataError: the data cannot be used (file and line), or the tokenizer has no chat template for messages.
    """
    found, digest, unused = read(data)
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    chosen = splits(found, seed=seed, digest=digest, limits=limits)
    names = (prompt_field, completion_field)
    chat = None if template is None else _template(Path(template))
    asked = {
        split: [Asked(_pieces(record, names, tokenizer, chat), record.fields) for record in rows]
        for split, rows in chosen.items()
    }
    task = completion(
        "completion",
        asked,
        tokenizer,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        end=end,
        new_tokens=new_tokens,
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


def _pieces(record: Record, names: tuple[str, str], tokenizer: Tokenizer, template: str | None) -> list[Piece]:
    fields = record.fields
    if "messages" in fields:
        return _turns(record, tokenizer, template)
    if names[0] in fields and names[1] in fields:
        prompt, answer = (_said(record, name) for name in names)
        if not answer.strip():
            raise DataError(f"{record.where}: the {names[1]} is empty")
        return [Piece(prompt, scored=False), Piece(answer, scored=True)]
    if "text" in fields:
        text = _said(record, "text")
        if not text.strip():
            raise DataError(f"{record.where}: the text is empty")
        return [Piece(text, scored=True)]
    raise DataError(
        f"{record.where}: expected {names[0]!r} and {names[1]!r}, or 'messages', or 'text'; found "
        f"{', '.join(map(repr, fields))}. Other names are given by task.prompt_field and task.completion_field"
    )


def _said(record: Record, name: str) -> str:
    value = record.fields[name]
    if not isinstance(value, str):
        raise DataError(f"{record.where}: expected text in {name!r}, found {type(value).__name__}")
    return value


def _turns(record: Record, tokenizer: Tokenizer, template: str | None) -> list[Piece]:
    """A conversation as the model's template lays it out, turn by turn."""
    messages = record.fields["messages"]
    if not isinstance(messages, list) or not all(_is_turn(turn) for turn in messages):
        raise DataError(f"{record.where}: expected messages to be a list of role and content, both texts")
    if not any(turn["role"] == "assistant" for turn in messages):
        raise DataError(f"{record.where}: expected a turn of the assistant, which is what is learned; found none")
    chat: Any = tokenizer
    if template is None and not getattr(chat, "chat_template", None):
        raise ConfigError(
            "the model's tokenizer has no chat template: name a file of one (--set task.template=FILE), or give prompt "
            "and completion instead of messages"
        )
    style = {"tokenize": False, "chat_template": template}
    pieces, before = [], ""
    for count, turn in enumerate(messages, 1):
        try:
            if turn["role"] == "assistant":
                # What the template writes before an answer is given to the model, not asked of it.
                opened = chat.apply_chat_template(messages[: count - 1], add_generation_prompt=True, **style)
                if opened.startswith(before) and opened != before:
                    pieces.append(Piece(opened[len(before) :], scored=False))
                    before = opened
            now = chat.apply_chat_template(messages[:count], **style)
        except Exception as error:  # templates raise what they like
            raise DataError(f"{record.where}: the chat template refuses it: {error}") from error
        if not now.startswith(before):
            raise DataError(f"{record.where}: the chat template rewrites earlier turns; give prompt and completion")
        pieces.append(Piece(now[len(before) :], scored=turn["role"] == "assistant"))
        before = now
    return pieces


def _is_turn(turn: object) -> bool:
    return isinstance(turn, Mapping) and all(isinstance(turn.get(name), str) for name in ("role", "content"))
