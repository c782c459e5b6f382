"""SQuAD 1.1: answer a question from a passage, in the passage's words.

The prompt is MeZO's, ``Title: …⏎Context: …⏎Question: …⏎Answer:``. A row without a title has no title
line. The model learns the first right answer and the end of its line; the loss is per token. The
greedy answer up to the end of the line is scored by SQuAD's F1 and exact match against all right
answers (:mod:`forq.tasks.objectives.rewards`).
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
from forq.tasks.rows.nested import nested
from forq.tasks.rows.order import draw
from forq.tasks.rows.record import Record
from forq.tasks.rows.table import read
from forq.tasks.rows.taken import Whole, sizes, taken

_MARKS = {"true": True, "1": True, "false": False, "0": False, "": False, "none": False}
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
    whole: Whole | None = None,
) -> Completion:
    """Read and tokenise the questions.

    Args:
        data: a folder with SQuAD's own JSON files (``train….json``, ``dev….json``), or any data that
            :func:`forq.tasks.rows.table.read` accepts. Its rows have ``context`` (or ``passage``),
            ``question`` (or ``query``), ``answers`` (or ``answer``) and optionally ``title``. In CSV and
            TSV a list or mapping of answers is text (:mod:`forq.tasks.rows.nested`). Without
            a test file the validation files are the test split, as in the papers. A split without a
            file is drawn from the training rows, at most one row in ten.
        seed: seed for drawing rows and for the order of training rows.
        max_length: maximum number of tokens in a row. A longer row loses its beginning and is counted.
        new_tokens: maximum number of tokens in an answer.
        whole: the questions are only scored; see :class:`forq.tasks.rows.taken.Whole`.

    Raises:
        ConfigError: a split or a batch would be empty.
        DataError: the data cannot be used (file and line).
    """
    tables, digest, unused, *_ = read(data)
    unread = _Unread()
    asked: dict[Split, list[Asked]] = {}
    for split, records in tables.items():
        asked[split] = [question for record in records for question in _questions(record, unread)]
    if "test" not in asked and "validation" in asked:
        asked["test"] = asked.pop("validation")
    for split in asked.keys() - {"train"}:
        # A file lists the questions of one article together.
        asked[split] = [
            asked[split][row] for row in draw(len(asked[split]), len(asked[split]), seed=seed, digest=digest)
        ]
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    chosen = None if whole is None else whole.of(asked)
    if chosen is None:
        chosen = splits(asked, seed=seed, digest=digest, limits=limits)
    task = completion(
        "squad",
        chosen,
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
    ignored, found = tuple(sorted(unread.fields)), taken(sizes(asked), sizes(chosen))
    return replace(task, part=part, ignored=ignored, unused=unused, taken=found)


def example(folder: Path) -> Path:
    """Write a hundred and twenty questions about numbered films."""
    rows = (
        {"passage": f"film {n} was {n % 9} good .", "query": f"how good was film {n} ?", "answer": f"{n % 9} good"}
        for n in range(120)
    )
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@dataclass(slots=True)
class _Unread:
    """What reading rows left out: fields, and the number of questions without an answer."""

    fields: set[str] = field(default_factory=set)
    impossible: int = 0


def _questions(record: Record, unread: _Unread) -> Iterator[Asked]:
    """The questions in a row, which may be an article in SQuAD's own layout."""
    row = Fields(record.fields)
    if "paragraphs" not in row:
        yield from _asked(row, record.where, unread)
        return
    head = {"title": row["title"]} if "title" in row else {}
    try:
        for inner in row["paragraphs"]:
            paragraph = Fields(inner, "paragraphs[].")
            for qa in paragraph["qas"]:
                question = Fields({**head, "context": paragraph["context"], **qa}, "paragraphs[].qas[].")
                yield from _asked(question, f"{record.where}, question {qa.get('id')}", unread)
            unread.fields |= paragraph.unread()
    except (AttributeError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{record.where}: expected an article with paragraphs and their qas, found {problem}"
        ) from error
    unread.fields |= row.unread()


def _asked(row: Fields, where: str, unread: _Unread) -> Iterator[Asked]:
    """A question with its prompt; nothing if the row is marked as impossible to answer."""
    if _impossible(row, where):
        unread.impossible += 1
        return
    title = _text(row, ("title",), where) if row.get("title") else None
    context, question = _text(row, ("context", "passage"), where), _text(row, ("question", "query"), where)
    answers = _answers(row, where)
    unread.fields |= row.unread()
    # The original files use Wikipedia's page titles, with underscores for spaces.
    head = "" if title is None else f"Title: {title.replace('_', ' ')}\n"
    prompt = f"{head}Context: {context}\nQuestion: {question}\nAnswer:"
    pieces = (Piece(prompt, scored=False), Piece(f" {answers[0]}\n", scored=True))
    yield Asked(pieces, {"question": question, "answer": answers[0], "answers": answers})


def _impossible(row: Fields, where: str) -> bool:
    """Whether a row is marked as impossible to answer; a table has the mark as text."""
    mark = row.get("is_impossible")
    value = _MARKS.get(str(mark).strip().lower())
    if value is None:
        raise DataError(f"{where}: expected true or false in 'is_impossible', found {json.dumps(mark, default=str)}")
    return value


def _text(fields: Fields, names: tuple[str, ...], where: str) -> str:
    value = next((fields[name] for name in names if name in fields), None)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{where}: expected text in {' or '.join(map(repr, names))}, found {_excerpt(value, names, fields)}"
        )
    return value.strip()


def _answers(fields: Fields, where: str) -> list[str]:
    """The right answers, given as ``{"text": […]}``, ``[{"text": …}, …]``, a list or a single text.

    A text may also spell one of the others, as in CSV.
    """
    names = ("answers", "answer")
    value = next((fields[name] for name in names if name in fields), None)
    if isinstance(value, str):
        try:
            value = nested(value)
        except ValueError as error:
            raise DataError(
                f"{where}: expected texts in 'answers' or 'answer', found what looks like a list or mapping and cannot "
                f'be read, {error}: {_excerpt(value, names, fields)}; write it as JSON, as in ["an answer"]'
            ) from error
    if isinstance(value, Mapping):
        value = value.get("text")
    answers = value if isinstance(value, list) else [value]
    values = [answer.get("text") if isinstance(answer, Mapping) else answer for answer in answers]
    texts = [text.strip() for text in values if isinstance(text, str) and text.strip()]
    if not texts or len(texts) < len(values):
        raise DataError(f"{where}: expected texts in 'answers' or 'answer', found {_excerpt(value, names, fields)}")
    return texts


def _excerpt(value: object, names: tuple[str, ...], fields: Fields) -> str:
    absent = value is None and not any(name in fields for name in names)
    return f"only {', '.join(map(repr, fields))}" if absent else json.dumps(value, default=str)[:80]
