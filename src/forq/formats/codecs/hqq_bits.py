"""HQQ's packed codes: a matrix cut into equal parts from top to bottom, the first in the highest bits of each word.

At 3 bits a word is an int32 of ten codes, and the matrix is filled up with rows of zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = {8: 1, 4: 2, 3: 10, 2: 4}
"""Codes of a word, by bits."""


def words(rows: int, bits: int) -> int:
    """Rows of words that hold ``rows`` of codes."""
    return -(-rows // PARTS[bits])


def unpack(packed: Tensor, bits: int, rows: int) -> Tensor:
    """uint8 (rows, columns), a code a byte, from words (rows of words, columns)."""
    count = PARTS[bits]
    found = torch.empty(count, *packed.shape, dtype=torch.uint8)
    for part in range(count):
        found[part].copy_((packed >> bits * (count - 1 - part)) & ((1 << bits) - 1))
    return found.view(-1, packed.shape[1])[:rows]


def pack(whole: Tensor, bits: int) -> Tensor:
    """The inverse."""
    count, dtype = PARTS[bits], torch.int32 if bits == 3 else torch.uint8
    height = words(len(whole), bits)
    filled = torch.zeros(count * height, whole.shape[1], dtype=dtype)
    filled[: len(whole)] = whole
    found = torch.zeros(height, whole.shape[1], dtype=dtype)
    for part, codes in enumerate(filled.view(count, height, -1)):
        found |= codes << bits * (count - 1 - part)
    return found
