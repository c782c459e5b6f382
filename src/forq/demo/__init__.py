"""The data of ``forq demo``: a small model, and a text corpus that every machine with Python has."""

from __future__ import annotations

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The shipped model: a GPTQ checkpoint, 4 bits, group size 64, with its tokenizer."""
