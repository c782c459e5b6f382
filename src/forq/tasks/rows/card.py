"""The card of a data set (``README.md`` of the hub), which may say what is a split and what numbers stand for."""

from __future__ import annotations

import re
from pathlib import Path

from forq.errors import DataError

_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_FOLLOWED = {
    "configs": re.compile(r"^configs:", re.MULTILINE),
    "class_label": re.compile(r"^dataset_info:.*\bclass_label:", re.DOTALL | re.MULTILINE),
}
"""What the datasets library follows in a card, and forq does not."""


def require_no_orders(folder: Path) -> None:
    """Refuse a folder whose card decides how it is read.

    Raises:
        DataError: the card names files of splits (``configs``), or labels that numbers stand for (``class_label``).
    """
    card = folder / "README.md"
    if not card.is_file():
        return
    front = _FRONT.match(card.read_text(encoding="utf-8", errors="replace"))
    found = [name for name, order in _FOLLOWED.items() if front and order.search(front[1])]
    if found:
        raise DataError(
            f"{card}: expected a card that leaves splits and labels to the files, found {' and '.join(found)} in its "
            f"head; give hf:{folder}, which the datasets library reads by its card, or move the card elsewhere"
        )
