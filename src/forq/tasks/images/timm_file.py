"""The preprocessing that timm keeps in its config.json, as the fields of a preprocessor_config.json.

Images are resized by their shorter side to input_size / crop_pct and cropped to their middle.
tests/unit/tasks/test_timm_file.py compares the numbers with timm's own, where timm is installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forq.checkpoints.json_file import read_json
from forq.errors import ConfigError
from forq.tasks.images.processors import CLASS

FILE = "config.json"
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
_MOST_CLASSES = 1 << 20
_NEEDED = ("input_size", "interpolation", "crop_pct", "mean", "std")


def timm_settings(folder: Path) -> Mapping[str, Any] | None:
    """The fields of a preprocessor_config.json for a network of timm; None if the folder has none.

    Raises:
        ConfigError: timm prepares the images in a way that these fields cannot say.
    """
    file = folder / FILE
    config = read_json(file) if file.is_file() else {}
    told = config.get("pretrained_cfg", config)  # versions before 0.9 wrote the same fields beside the architecture
    if "architecture" not in config or not isinstance(told, dict) or "input_size" not in told:
        return None
    side, share = _side(told["input_size"]), told.get("crop_pct")
    if (
        any(told.get(name) is None for name in _NEEDED)
        or side is None
        or not isinstance(share, int | float)
        or not 0.1 <= share <= 1
        or told["interpolation"] not in _FILTERS
        or told.get("crop_mode", "center") != "center"
    ):
        found = {name: told.get(name) for name in (*_NEEDED, "crop_mode")}
        raise ConfigError(
            f"{file}: expected a square input_size, a crop_pct from 0.1 to 1, mean, std, crop_mode center and an "
            f"interpolation among {', '.join(_FILTERS)}, found {found!r:.300}; write a preprocessor_config.json that "
            "names every step, and set task.preprocessor to it"
        )
    return {
        "do_resize": True,
        "size": {"shortest_edge": math.floor(side / share)},
        "resample": _FILTERS[told["interpolation"]],
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_normalize": True,
        "image_mean": told["mean"],
        "image_std": told["std"],
        CLASS: None,
    }


def label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that timm's config.json names, in the order of the outputs; none if it names none.

    They stand beside the architecture or among the fields of the preprocessing, as a list or by number; the first
    versions called them labels. An output without a name is called by its number.
    """
    if "architecture" not in config:
        return ()
    told = config.get("pretrained_cfg", config)
    places = (config.get("label_names"), told.get("label_names") if isinstance(told, dict) else None)
    names = next((names for names in (*places, config.get("labels")) if names), None)
    if isinstance(names, dict) and all(str(place).isdecimal() for place in names):
        by_place = {int(place): name for place, name in names.items()}
        count = config.get("num_classes")
        last = max(max(by_place) + 1, count if isinstance(count, int) else 0)
        names = [by_place.get(place, place) for place in range(last)] if last <= _MOST_CLASSES else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _side(size: object) -> int | None:
    """The side of a square input (channels, height, width)."""
    match size:
        case [int(), int(high), int(wide)] if high == wide and high > 0:
            return high
    return None
