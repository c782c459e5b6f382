"""Names of GGUF files that are a part of a model: one of several files, or what reads images for it."""

from __future__ import annotations

import re
from pathlib import Path

SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)
"""Name of one of several files: stem, number from 1 on, count, and ending."""


def part_of(path: Path) -> tuple[int, int] | None:
    """The number of a file among the files of a model, from 1 on, and their count; None for a file alone."""
    match = SPLIT.fullmatch(path.name)
    return None if match is None else (int(match[2]), int(match[3]))


def is_projector(path: Path) -> bool:
    """Whether a file holds the part of a model that reads images or sound."""
    return path.suffix.lower() == ".gguf" and path.name.lower().startswith("mmproj")
