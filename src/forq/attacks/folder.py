"""The output folder of an attack: settings.json, results.jsonl (one row per finished image), PNG files, summary."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forq.attacks.ball import Distance, Image
from forq.attacks.images import png, read_png
from forq.attacks.queries import ImageOutcome
from forq.attacks.result import row
from forq.errors import ConfigError
from forq.runs.folder import put_json
from forq.runs.lock import NAME as LOCK
from forq.runs.lock import lock
from forq.runs.metrics import rows_of

_SETTINGS = "settings.json"


class Folder:
    """Output folder, written image by image; a second run with the same settings continues it.

    Attributes:
        done: outcomes of earlier sessions.
        spent: queries, checks and calls of earlier sessions, unfinished images included.
    """

    def __init__(self, path: Path, settings: Mapping[str, object], images: NDArray[np.uint8]) -> None:
        """
        Raises:
            ConfigError: the folder holds other files or an attack with other settings, or another
                process writes to it.
        """
        self.path = path
        as_json = json.loads(json.dumps(settings))
        if path.exists() and (not path.is_dir() or _has_other_files(path)) and _read(path / _SETTINGS) is None:
            raise ConfigError(
                f"{path} is in the way: expected an empty folder or an earlier attack, found other files; "
                "choose another --out"
            )
        (path / "adversarial").mkdir(parents=True, exist_ok=True)
        message = f"{path}: another forq is writing this attack; wait for it, or choose another --out"
        self._release = weakref.finalize(self, lock(path, ConfigError, message).release)
        self._rows = path / "results.jsonl"
        self._check_settings(as_json)
        put_json(path / _SETTINGS, as_json)
        self.done = [self._outcome(body, images) for _, body in rows_of(self._rows)]
        summary = _read(path / "summary.json") or {}
        # A killed process wrote no summary; then the rows give a lower bound of what was spent.
        least = (sum(outcome.queries for outcome in self.done), sum(outcome.found for outcome in self.done), 0)
        keys = ("queries", "checks", "victim_calls")
        self.spent = [max(int(summary.get(key, 0)), floor) for key, floor in zip(keys, least, strict=True)]
        self._rewrite(self.done)
        self._file = self._rows.open("a", encoding="utf-8")

    def written(self, index: int, image: Image) -> Image:
        """Store an image as PNG and read it back."""
        path = self._png(index)
        path.write_bytes(png(image))
        return read_png(path)

    def add(self, outcome: ImageOutcome) -> None:
        """Append the row of an image."""
        if outcome.found and not outcome.success:
            self._png(outcome.index).unlink(missing_ok=True)
        self._file.write(json.dumps(row(outcome)) + "\n")
        self._file.flush()

    def close(self, outcomes: Sequence[ImageOutcome], summary: Mapping[str, object]) -> None:
        """Write all rows again in the order of the data, and the summary; each file atomically."""
        self._file.close()
        self._rewrite(outcomes)
        put_json(self.path / "summary.json", summary)
        self._release()

    def _rewrite(self, outcomes: Sequence[ImageOutcome]) -> None:
        new = self._rows.with_suffix(".new")
        new.write_text("".join(json.dumps(row(outcome)) + "\n" for outcome in outcomes), encoding="utf-8")
        new.replace(self._rows)

    def _check_settings(self, settings: Mapping[str, object]) -> None:
        """Refuse results with other settings. If no image was attacked yet, start over instead."""
        earlier = _read(self.path / _SETTINGS) or settings
        changed = [name for name in sorted({*earlier, *settings}) if earlier.get(name) != settings.get(name)]
        if changed and any(body["correct"] for _, body in rows_of(self._rows)):
            self._release()
            raise ConfigError(f"{self.path} holds an attack with another {', '.join(changed)}; choose another --out")
        if changed:
            self._rows.unlink(missing_ok=True)
            (self.path / "summary.json").unlink(missing_ok=True)

    def _png(self, index: int) -> Path:
        return self.path / "adversarial" / f"{index:05d}.png"

    def _outcome(self, body: dict[str, Any], images: NDArray[np.uint8]) -> ImageOutcome:
        if "lowest_margin" not in body:  # an older row, where "margin" is the lowest margin
            body |= {"lowest_margin": body["margin"], "margin": None}
        distance = Distance(body.pop("linf"), body.pop("l2"), body.pop("l0"))
        image = read_png(self._png(body["index"])) if body["success"] else images[body["index"]]
        return ImageOutcome(**body, distance=distance, image=image)


def _has_other_files(path: Path) -> bool:
    return any(entry.name != LOCK for entry in path.iterdir())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return body if isinstance(body, dict) else None
