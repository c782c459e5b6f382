"""Rows of a task's data on the screen, token by token, as the model will see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from forq.cli import _screen

if TYPE_CHECKING:
    from forq.tasks.rows.rows import Rows

_LEARNED, _GIVEN = "*", " "
LEGEND = f"each token: its id and its text in quotes; {_LEARNED} marks what is learned"


def plain(task: Rows[Any, Any], count: int) -> list[dict[str, Any]]:
    """The first training rows as JSON: segments of tokens, each with its id, text and whether it is learned."""
    from forq.tasks.rows.segments import spellings

    rows = []
    for number, row in enumerate(task.rows["train"][:count]):
        segments = []
        for segment in task.segments(row):
            texts = spellings(task.tokenizer, segment.tokens)
            tokens = [
                {"id": token, "text": text, "learned": learned}
                for token, text, learned in zip(segment.tokens, texts, segment.learned, strict=True)
            ]
            segments.append({"role": segment.role, "tokens": tokens})
        rows.append({"split": "train", "row": number, "truncated": task.lost(row), "segments": segments})
    return rows


def show(task: Rows[Any, Any], count: int) -> None:
    """Print the first training rows; the learned tokens have a mark and a colour."""
    _screen.out.print(LEGEND, highlight=False, soft_wrap=True)
    for row in plain(task, count):
        for text, style in _lines(row, len(task.rows["train"]), task.part):
            _screen.out.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def _lines(row: dict[str, Any], rows: int, part: str) -> Iterator[tuple[str, str | None]]:
    """Lines of one row, each with its style."""
    tokens = [token for segment in row["segments"] for token in segment["tokens"]]
    learned = sum(token["learned"] for token in tokens)
    cut = f"; {row['truncated']:,} more were cut off: it lost {part}" if row["truncated"] else ""
    yield "", None
    yield f"{row['split']} row {row['row'] + 1} of {rows:,}: {len(tokens):,} tokens, {learned:,} learned{cut}", "bold"
    width = max(len(str(token["id"])) for token in tokens)
    for segment in row["segments"]:
        if segment["role"]:
            yield f"  {segment['role']}:", "dim"
        for token in segment["tokens"]:
            mark = _LEARNED if token["learned"] else _GIVEN
            yield f"{mark} {token['id']:>{width}}  {token['text']}", "green" if token["learned"] else None
