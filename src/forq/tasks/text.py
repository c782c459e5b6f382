"""Language modelling on text files: each token of a window is predicted from the tokens before it.

The data is a ``.txt`` or ``.md`` file, or a folder of them. Files are read in order of their names;
hidden files are skipped. The splits are the ``train``, ``validation`` and ``test`` files of a folder
(:mod:`forq.tasks.rows.split_names`), where they exist. Without a ``train`` file all other files are
training text. A split without a file is cut off the end of the training text, 5 % of its tokens.

A window begins with what the tokenizer puts in front of a text (BOS, or nothing), and tokens of the
text fill it up to ``max_length``. With BOS each token of the text is predicted once. Without BOS
windows overlap by one token, and each token except the first is predicted once. Tokens that do not
fill a last window are left out.

Texts are tokenised in pieces of about 256 KiB that end at a line's end. So memory is bounded by the
tokens (4 bytes each). Nothing marks the border between two files. Lines end with ``\\n``, whatever a
file has in its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.kinds.generate import written
from forq.tasks.kinds.token_rows import TokenRows
from forq.tasks.rows.corpus import NEWEST, Reading, Tokens, files, tokenised
from forq.tasks.rows.segments import Segment
from forq.tasks.rows.taken import Whole, sizes, taken
from forq.tokens.batches import Batch
from forq.tokens.text import prefix

_HELD_OUT: tuple[Split, Split] = ("validation", "test")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Text(TokenRows[Tokens]):
    """A text cut into windows; made by :func:`open`.

    A row is a window: int32 [max_length − len(prefix)], a view of the text's tokens.

    Attributes:
        prefix: token ids that the tokenizer puts in front of a text.
        origin: names of the files each split was read from.
        reading: the law by which they were read.
    """

    prefix: tuple[int, ...]
    origin: Mapping[Split, tuple[str, ...]]
    reading: Reading

    def details(self) -> Mapping[str, object]:
        origin = {split: list(files) for split, files in self.origin.items()}
        return {"origin": origin, "prefix": list(self.prefix), "reading": self.reading}

    def length(self, row: Tokens) -> int:
        return len(self.prefix) + len(row)

    def segments(self, row: Tokens) -> tuple[Segment, ...]:
        tokens = (*self.prefix, *row.tolist())
        first = max(len(self.prefix), 1)  # nothing precedes a row's first token, so nothing predicts it
        return (Segment(tokens, tuple(place >= first for place in range(len(tokens)))),)

    def sample(self, model: nn.Module, n_tokens: int) -> str:
        """The first quarter of the first test window and its continuation.

        Tokens are sampled at temperature 0.7, with the task's seed.
        """
        body = self.rows["test"][0][: max(1, self.max_length // 4)].tolist()
        generator = torch.Generator().manual_seed(self.seed)

        def sampled(logits: Tensor) -> list[int]:
            probabilities = torch.softmax(logits.cpu() / 0.7, dim=1)
            tokens: list[int] = torch.multinomial(probabilities, 1, generator=generator)[:, 0].tolist()
            return tokens

        (continuation,) = written(model, [[*self.prefix, *body]], n_tokens, pick=sampled)
        return self.tokenizer.decode([*self.prefix, *body, *continuation], skip_special_tokens=True)

    def pack(self, rows: Sequence[Tokens], most_tokens: int | None = None) -> Batch:
        body = torch.from_numpy(np.stack(rows).astype(np.int64))
        front = len(self.prefix)
        ids = torch.cat([torch.tensor(self.prefix, dtype=torch.int64).expand(len(rows), -1), body], dim=1)
        first = max(front - 1, 0)
        columns = torch.arange(first, ids.shape[1] - 1)
        return Batch(
            input_ids=ids,
            row=torch.arange(len(rows)).repeat_interleave(len(columns)),
            column=columns.repeat(len(rows)),
            target=ids[:, first + 1 :].reshape(-1),
            lengths=(len(columns),) * len(rows),
            most_tokens=most_tokens,
        )


def open(
    data: Path,
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_length: int = 128,
    batch_rows: int = 8,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    reading: Reading = NEWEST,
    whole: Whole | None = None,
) -> Text:
    """Read and tokenise the text.

    Args:
        data: a file or a folder.
        seed: seed for the order of the training windows.
        max_length: number of tokens in a window, the prefix included.
        batch_rows: windows per batch.
        train_rows, validation_rows, test_rows: number of windows to keep from the start of each
            split; None: all.
        reading: the law of the text. Not to be chosen: a run goes on with the law of its description, and
            one whose description has none is of law 1.
        whole: the windows are only scored; see :class:`forq.tasks.rows.taken.Whole`.

    Raises:
        ConfigError: a window, a batch or a split would be empty.
        DataError: the data does not exist, is not UTF-8 (file and byte offset), or is too short for
            one window.
    """
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    front = prefix(tokenizer)
    if max_length < len(front) + 2:
        raise ConfigError(f"max_length must be {len(front) + 2} or more, found {max_length}")
    if batch_rows < 1 or any(rows is not None and rows < 1 for rows in limits.values()):
        raise ConfigError(f"batches and splits need 1 row or more, found {batch_rows} and {limits}")
    named, unused = files(Path(data), reading)
    tokens = {split: tokenised(paths, tokenizer, reading) for split, paths in named.items()}
    origin = {split: tuple(path.name for path in paths) for split, paths in named.items()}
    if whole is not None and tokens.keys() == {"train"}:
        parts: dict[Split, Tokens] = {"test": tokens["train"]}
        origin, limits = {"test": origin["train"]}, {"test": whole.most}
    else:
        parts = _cut(tokens)
        origin |= {split: ("the end of train",) for split in _HELD_OUT if split not in tokens}
    found: dict[Split, Any] = {  # arrays [rows, tokens]
        split: _windows(ids, max_length, front, split, Path(data)) for split, ids in parts.items()
    }
    windows = {split: rows[: limits[split]] for split, rows in found.items()}
    known = {split: len(rows) for split, rows in found.items() if split in named}
    known["train"] = sum(len(rows) for split, rows in found.items() if split == "train" or split not in named)
    settings = {"task": "text", "law": 1, "batch_rows": batch_rows, "prefix": front}
    return Text(
        name="text",
        rows=windows,
        prefix=front,
        origin=origin,
        reading=reading,
        tokenizer=tokenizer,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        digest=_digest(settings, windows),
        unused=unused,
        taken=taken(known, sizes(windows)),
    )


def example(folder: Path) -> Path:
    """Write a tiny text of 2,000 different numbered lines."""
    path = folder / "numbers.txt"
    path.write_text("".join(f"line {n} says {n * n % 997} .\n" for n in range(2000)), encoding="utf-8")
    return path


def _cut(tokens: Mapping[Split, Tokens]) -> dict[Split, Tokens]:
    """Tokens by split. A split without a file is cut off the end of the training text, validation before test."""
    missing = [split for split in _HELD_OUT if split not in tokens]
    size = len(tokens["train"]) // 20
    end = len(tokens["train"]) - size * len(missing)
    cut: dict[Split, Tokens] = {"train": tokens["train"][:end]}
    for split in _HELD_OUT:
        if split in tokens:
            cut[split] = tokens[split]
        else:
            cut[split] = tokens["train"][end : end + size]
            end += size
    return cut


def _windows(tokens: Tokens, max_length: int, front: tuple[int, ...], split: Split, data: Path) -> Tokens:
    body = max_length - len(front)
    if len(tokens) < body:
        raise DataError(
            f"{data}: {split} has {len(tokens)} tokens, too few for one window of {body}; "
            "give more text or lower max_length"
        )
    stride = body if front else body - 1
    windows: Tokens = np.lib.stride_tricks.sliding_window_view(tokens, body)[::stride]
    return windows


def _digest(settings: Mapping[str, object], windows: Mapping[Split, Tokens]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for split, rows in sorted(windows.items()):
        digest.update(f"{split} {rows.shape}".encode())
        for start in range(0, len(rows), 4096):
            digest.update(np.ascontiguousarray(rows[start : start + 4096], dtype="<i4").tobytes())
    return digest.hexdigest()
