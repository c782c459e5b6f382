"""What the demo of the command line needs: a text corpus that every machine with Python already has."""

from __future__ import annotations

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The shipped model: a GPTQ folder of 4 bits, group 64, with its tokenizer."""
