"""Read a preprocessor_config.json. Its class fills in what it leaves out; without a class, nothing is guessed.

transformers 5 writes the same fields into a processor_config.json where texts are prepared too, and reads them there
first. Where there is neither, timm's config.json takes its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import ConfigError
from forq.tasks.images.preprocessing import FILE, Preprocessing
from forq.tasks.images.processors import CLASS, PROCESSORS, processor_of
from forq.tasks.images.sizes import Sizes, sizes_of
from forq.tasks.images.timm_file import FILE as TIMM_FILE
from forq.tasks.images.timm_file import timm_settings

_WHOLE, _IMAGES = "processor_config.json", "image_processor"
"""A file for texts and images together, and its field for the images."""
_READ = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "do_flip_channel_order", "default_to_square"),
    *("image_processor_type", "feature_extractor_type"),
    # Images are in the network's own channels and its order of axes whatever these say.
    *("do_convert_rgb", "data_format", "input_data_format"),
    # These say nothing of the numbers.
    *("processor_class", "_valid_processor_keys", "do_reduce_labels", "reduce_labels"),
    *("return_tensors", "device", "use_fast", "disable_grouping", "transformers_version"),
}
"""Fields of the file that are read, or that change nothing."""


def preprocessing(
    graph: GraphImages, path: str | None, mean: str | float | None, std: str | float | None
) -> Preprocessing:
    """The preprocessing of a graph, by its folder's preprocessor_config.json or timm's config.json, and by the user.

    Without these files, levels are divided by 255 and images are resized to the graph's own size.

    Args:
        path: another such file.
        mean, std: a number, or one for each channel with commas, in place of the file's.

    Raises:
        ConfigError: the file or a number cannot be used, or it does not fit the graph's size.
    """
    file = file_of(graph) if path is None else Path(path)
    if path is not None and not file.is_file():
        raise ConfigError(f"task.preprocessor: expected a file, found none at {file}")
    own = None if graph.height is None or graph.width is None else (graph.height, graph.width)
    by_timm = None
    if file.is_file():
        settings = settings_of(file, normalised=not graph.floats or None not in (mean, std))
        sizes = sizes_of(file, settings)
    elif (by_timm := timm_settings(graph.folder)) is not None:
        file, settings = graph.folder / TIMM_FILE, by_timm
        sizes = sizes_of(file, settings)
    else:
        settings, sizes = {}, Sizes(size=own)
    final = sizes.crop or sizes.size
    if own is not None and final is not None and final != own:
        raise ConfigError(
            f"{file}: expected images of {own[0]}×{own[1]}, as the graph takes, found {final[0]}×{final[1]}"
        )
    stored = settings if settings.get("do_normalize") else {}
    means = _numbers("mean", mean, stored.get("image_mean"), 0.0, graph)
    stds = _numbers("std", std, stored.get("image_std"), 1.0, graph)
    if not graph.floats and (mean is not None or std is not None):
        raise ConfigError(f"{graph.path}: expected no task.mean or task.std, since the graph takes uint8 levels")
    if any(value <= 0 for value in stds):
        raise ConfigError(f"task.std: expected positive numbers, found {stds}")
    factor = settings.get("rescale_factor", 1.0 / 255.0) if settings.get("do_rescale", True) else 1.0
    if not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise ConfigError(f"{file}: expected a rescale_factor above 0, at most 1, found {factor!r:.40}")
    resample = settings.get("resample", 2)
    if resample not in {filter.value for filter in Image.Resampling}:
        raise ConfigError(f"{file}: expected resample to be a number of Pillow's filters, found {resample!r:.40}")
    reverse = bool(settings.get("do_flip_channel_order"))
    return Preprocessing(*sizes, float(factor), means, stds, int(resample), reverse, by_timm is not None)


def file_of(graph: GraphImages) -> Path:
    """The file that says how images are prepared: of the whole processor if it has a field for them.

    It lies beside the graph, or above a folder called ``onnx``, as in exports on the hub.
    """
    above = [graph.path.parent.parent] if graph.path.parent.name == "onnx" else []
    for folder in dict.fromkeys((graph.folder, graph.path.parent, *above)):
        whole = folder / _WHOLE
        if whole.is_file() and _IMAGES in _object(whole):
            return whole
        if (folder / FILE).is_file():
            return folder / FILE
    return graph.folder / FILE


def settings_of(file: Path, *, normalised: bool) -> Mapping[str, Any]:
    """The fields of a file, with the defaults of its class and the class's name under ``CLASS``.

    A null is no default: transformers takes it for false, and refuses it where a step needs the field.

    Args:
        normalised: mean and std are given beside the file, or not needed.

    Raises:
        ConfigError: the file is no JSON object, has fields that are not read, names an unknown class, or leaves out a
            field whose default depends on a class that it does not name.
    """
    given = _fields(file)
    named = given.get("image_processor_type") or given.get("feature_extractor_type")
    processor = None if named is None else processor_of(str(named))
    if named is not None and processor is None:
        raise ConfigError(
            f"{file}: expected the class of an image processor among {', '.join(PROCESSORS)}, found {named!r:.80}; "
            "write a file without a class that names every step (do_resize, size, resample, do_center_crop, crop_size, "
            "do_normalize, image_mean, image_std), and set task.preprocessor to it"
        )
    defaults = {} if processor is None else PROCESSORS[processor]
    if unread := sorted(name for name, value in given.items() if value and name not in _READ | set(defaults)):
        raise ConfigError(
            f"{file}: expected fields that forq reads, found {', '.join(unread)!r:.200}; prepare the images by "
            "hand and remove these fields, or set task.preprocessor to another file"
        )
    if processor is None:  # what the file does not mention is not done, but normalising has to be mentioned
        defaults = {"do_resize": given.get("size") is not None, "do_normalize": True}
    settings = {**defaults, **given, CLASS: processor}
    if processor == "MobileViT":
        settings["do_normalize"] = False  # the class does not look at the field
    _check(file, settings, normalised=normalised)
    return settings


def _check(file: Path, settings: Mapping[str, Any], *, normalised: bool) -> None:
    """Refuse a step without the fields that it needs."""
    needed = ["size", "resample"] if settings["do_resize"] else []
    needed += ["crop_size"] if settings.get("do_center_crop") else []
    needed += ["do_center_crop"] if settings[CLASS] is None and settings.get("crop_size") is not None else []
    needed += ["image_mean", "image_std"] if settings["do_normalize"] and not normalised else []
    if missing := [name for name in needed if settings.get(name) is None]:
        raise ConfigError(
            f"{file}: expected {', '.join(missing)}, whose defaults depend on the class of the image processor, found "
            "none; add them to the file (do_normalize: false if levels are only rescaled), or give task.mean and "
            "task.std"
        )


def _fields(path: Path) -> Mapping[str, Any]:
    """The fields for images, wherever they stand in a file."""
    whole = _object(path)
    found = whole.get(_IMAGES, whole)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected fields in {_IMAGES}, found {type(found).__name__}")
    return found


def _object(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def _numbers(
    what: str, given: str | float | None, stored: object, usual: float, graph: GraphImages
) -> tuple[float, ...]:
    value = stored if given is None else given
    if value is None:
        return (usual,)
    parts: list[object] = list(value.split(",")) if isinstance(value, str) else [value]
    parts = value if isinstance(value, list) else parts
    try:
        numbers = tuple(float(str(part)) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (1, graph.channels or 3) or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"task.{what}: expected a number, or one for each channel with commas, found {value!r:.60}")
    return numbers
