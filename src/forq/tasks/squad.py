"""SQuAD 1.1: answer a question from a passage, in the passage's words.

The prompt is MeZO's, ``Title: …⏎Context: …⏎Question: …⏎Answer:``; rows without a title leave its line out. Learned is
the first right answer and the end of its line; the loss is per token. Scored is the greedy answer up to the end of the
line, by SQuAD's F1 and exact match against all right ones (:mod:`forq.tasks.objectives.rewards`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from forq.errors import DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.chat.encoding import Asked, Piece
from forq.tasks.kinds.completion import Completion, completion, splits
from forq.tasks.objectives import rewards
from forq.tasks.rows.fields import Fields
from forq.tasks.rows.order import draw
from forq.tasks.rows.table import Record, read

_METRICS = {"f1": rewards.f1, "exact_match": rewards.exact_match}


def open(
    data: Path,
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_length: int = 2048,
    batch_rows: int = 16,
    train_rows: int | None = 1000,
    validation_rows: int | None = 500,
    test_rows: int | None = 1000,
    new_tokens: int = 50,
) -> Completion:
    """Read and tokenise the questions.

    Args:
        data: SQuAD's own JSON files (``train….json``, ``dev….json``) in a folder, or rows of ``context`` (or
            ``passage``), ``question`` (or ``query``), ``answers`` (or ``answer``) and perhaps ``title`` in what
            :func:`forq.tasks.rows.table.read` takes. Validation files are the test where there is no test file, as
            in the papers; a split without a file is drawn from the training rows, one in ten at most.
        seed: of the rows that are drawn, and of the order of training.
        max_length: tokens of a row; longer ones lose the beginning, and are counted.
        new_tokens: of an answer, at most.

    Raises:
        ConfigError: a split or a batch would be empty.
        DataError: the data cannot be used (file and line).
    """
    found, digest, unused = read(data)
    unread = _Unread()
    asked: dict[Split, list[Asked]] = {}
    for split, records in found.items():
        asked[split] = [question for record in records for question in _questions(record, unread)]
    if "test" not in asked and "validation" in asked:
        asked["test"] = asked.pop("validation")
    for split in asked.keys() - {"train"}:
        # Rows of one article stand together in the file.
        asked[split] = [
            asked[split][row] for row in draw(len(asked[split]), len(asked[split]), seed=seed, digest=digest)
        ]
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    task = completion(
        "squad",
        splits(asked, seed=seed, digest=digest, limits=limits),
        tokenizer,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        end=False,
        new_tokens=new_tokens,
        line=True,
        metrics=_METRICS,
    )
    part = "the beginning of the prompt: the title, then the passage"
    if unread.impossible:
        unused += (f"{unread.impossible:,} questions marked is_impossible",)
    return replace(task, part=part, ignored=tuple(sorted(unread.fields)), unused=unused)


def example(folder: Path) -> Path:
    """A hundred and twenty questions about numbered films."""
    rows = (
        {"passage": f"film {n} was {n % 9} good .", "query": f"how good was film {n} ?", "answer": f"{n % 9} good"}
        for n in range(120)
    )
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@dataclass(slots=True)
class _Unread:
    """What was left aside while rows were read: fields, and questions that have no answer."""

    fields: set[str] = field(default_factory=set)
    impossible: int = 0


def _questions(record: Record, unread: _Unread) -> Iterator[Asked]:
    """The questions of a row, or of an article in SQuAD's own layout."""
    row = Fields(record.fields)
    if "paragraphs" not in row:
        yield from _asked(row, record.where, unread)
        return
    head = {"title": row["title"]} if "title" in row else {}
    try:
        for inner in row["paragraphs"]:
            paragraph = Fields(inner, "paragraphs[].")
            for found in paragraph["qas"]:
                question = Fields({**head, "context": paragraph["context"], **found}, "paragraphs[].qas[].")
                yield from _asked(question, f"{record.where}, question {found.get('id')}", unread)
            unread.fields |= paragraph.unread()
    except (AttributeError, KeyError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise DataError(f"{record.where}: expected an article with paragraphs and their qas, found {said}") from error
    unread.fields |= row.unread()


def _asked(row: Fields, where: str, unread: _Unread) -> Iterator[Asked]:
    """A question as it is put to the model; none where the row says that it has no answer."""
    if row.get("is_impossible", False):
        unread.impossible += 1
        return
    title = _text(row, ("title",), where) if row.get("title") else None
    context, question = _text(row, ("context", "passage"), where), _text(row, ("question", "query"), where)
    answers = _answers(row, where)
    unread.fields |= row.unread()
    # Titles of the original files are those of pages, with underscores.
    head = "" if title is None else f"Title: {title.replace('_', ' ')}\n"
    prompt = f"{head}Context: {context}\nQuestion: {question}\nAnswer:"
    pieces = (Piece(prompt, scored=False), Piece(f" {answers[0]}\n", scored=True))
    yield Asked(pieces, {"question": question, "answer": answers[0], "answers": answers})


def _text(fields: Fields, names: tuple[str, ...], where: str) -> str:
    value = next((fields[name] for name in names if name in fields), None)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{where}: expected text in {' or '.join(map(repr, names))}, found {_shown(value, names, fields)}"
        )
    return value.strip()


def _answers(fields: Fields, where: str) -> list[str]:
    """Right answers, of ``{"text": […]}``, ``[{"text": …}, …]``, a list or a single text."""
    names = ("answers", "answer")
    found = next((fields[name] for name in names if name in fields), None)
    if isinstance(found, Mapping):
        found = found.get("text")
    every = found if isinstance(found, list) else [found]
    said = [one.get("text") if isinstance(one, Mapping) else one for one in every]
    texts = [text.strip() for text in said if isinstance(text, str) and text.strip()]
    if not texts or len(texts) < len(said):
        raise DataError(f"{where}: expected texts in 'answers' or 'answer', found {_shown(found, names, fields)}")
    return texts


def _shown(value: object, names: tuple[str, ...], fields: Fields) -> str:
    absent = value is None and not any(name in fields for name in names)
    return f"only {', '.join(map(repr, fields))}" if absent else json.dumps(value, default=str)[:80]
