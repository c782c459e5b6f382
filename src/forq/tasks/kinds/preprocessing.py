"""From an image to the numbers that a network takes, as the fields of a preprocessor_config.json say.

levels   resized, cropped to the middle, uint8 [H, W, C]
x        (levels · factor − mean) / std, float32, where the network takes floats; otherwise the levels themselves
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import ConfigError, DataError

FILE = "preprocessor_config.json"

_READ = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "do_flip_channel_order"),
    # Images are in the network's own channels and its order of axes whatever these say.
    *("do_convert_rgb", "data_format", "input_data_format"),
    # These say nothing of the numbers.
    *("image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "_valid_processor_keys"),
    *("default_to_square", "return_tensors", "device", "use_fast", "disable_grouping", "transformers_version"),
}
"""Fields of the file that are read, or that change nothing."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How images become inputs.

    Attributes:
        size: (height, width) to resize to; None: images keep their size.
        shortest: length of the shorter side to resize to before ``crop``, in place of ``size``.
        crop: (height, width) of the middle that is kept.
        factor: what levels are multiplied by, usually 1/255.
        mean, std: by channel, or one for all.
        resample: number of Pillow's filter.
        reverse: whether channels are in the order blue, green, red.
    """

    size: tuple[int, int] | None = None
    shortest: int | None = None
    crop: tuple[int, int] | None = None
    factor: float = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resample: int = 2
    reverse: bool = False

    def levels(self, picture: Image.Image) -> NDArray[np.uint8]:
        """An image in its final size: uint8 [H, W, C]."""
        how = Image.Resampling(self.resample)
        if self.shortest is not None:
            # The longer side is cut to whole pixels, as torchvision and transformers do.
            wide, high = (side * self.shortest // min(picture.size) for side in picture.size)
            picture = picture.resize((wide, high), how)
        elif self.size is not None and picture.size != self.size[::-1]:
            picture = picture.resize(self.size[::-1], how)
        if self.crop is not None and picture.size != self.crop[::-1]:
            left, top = (picture.width - self.crop[1]) // 2, (picture.height - self.crop[0]) // 2
            picture = picture.crop((left, top, left + self.crop[1], top + self.crop[0]))
        array = np.asarray(picture, dtype=np.uint8)
        array = array if array.ndim == 3 else array[..., None]
        return np.ascontiguousarray(array[..., ::-1]) if self.reverse else array

    def numbers(self, levels: Tensor, graph: GraphImages) -> Tensor:
        """A batch of levels, uint8 [N, H, W, C], in the type and the order of axes that a graph takes."""
        x = levels
        if graph.floats:
            x = (levels.float() * self.factor - torch.tensor(self.mean)) / torch.tensor(self.std)
        return x.permute(0, 3, 1, 2).contiguous() if graph.channels_first else x

    def plain(self) -> dict[str, object]:
        """The settings for a task's description."""
        return {
            "size": list(self.size or self.crop or ()),
            "factor": self.factor,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def preprocessing(
    graph: GraphImages, path: str | None, mean: str | float | None, std: str | float | None
) -> Preprocessing:
    """The preprocessing of a graph: its folder's preprocessor_config.json, and what the user says.

    Without the file, levels are divided by 255 and images are resized to the graph's own size.

    Args:
        path: another such file.
        mean, std: a number, or one for each channel with commas, in place of the file's.

    Raises:
        ConfigError: the file or a number cannot be used, or it does not fit the graph's size.
    """
    file = graph.folder / FILE if path is None else Path(path)
    if path is not None and not file.is_file():
        raise ConfigError(f"task.preprocessor: expected a file, found none at {file}")
    settings = _read(file) if file.is_file() else {}
    if unread := sorted(name for name, value in settings.items() if value and name not in _READ):
        raise ConfigError(
            f"{file}: expected fields that forq reads, found {', '.join(unread)!r:.200}; prepare the images by "
            "hand and remove these fields, or set task.preprocessor to another file"
        )
    own = None if graph.height is None or graph.width is None else (graph.height, graph.width)
    size, shortest, crop = _sizes(file, settings, own)
    final = crop or size
    if own is not None and final is not None and final != own:
        raise ConfigError(
            f"{file}: expected images of {own[0]}×{own[1]}, as the graph takes, found {final[0]}×{final[1]}"
        )
    normalises = settings.get("do_normalize", "image_mean" in settings) is True
    means = _numbers("mean", mean, settings.get("image_mean") if normalises else None, 0.0, graph)
    stds = _numbers("std", std, settings.get("image_std") if normalises else None, 1.0, graph)
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
    reverse = settings.get("do_flip_channel_order") is True
    return Preprocessing(size, shortest, crop, float(factor), means, stds, int(resample), reverse)


def _sides(size: Sequence[int]) -> str:
    """Height and width in words."""
    return f"{size[0]} by {size[1]}"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def _sizes(
    file: Path, settings: Mapping[str, Any], own: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, int | None, tuple[int, int] | None]:
    """Size to resize to, length of the shorter side, and size of the crop."""
    crop = _pair(file, settings["crop_size"]) if settings.get("do_center_crop") and "crop_size" in settings else None
    if not settings.get("do_resize", bool(own)):
        return None, None, crop
    size = settings.get("size")
    if (isinstance(size, dict) and "shortest_edge" in size) or (isinstance(size, int) and crop is not None):
        edge = size["shortest_edge"] if isinstance(size, dict) else size
        if type(edge) is not int or not 0 < edge < 1 << 14:
            raise ConfigError(f"{file}: expected shortest_edge in pixels, found {edge!r:.40}")
        return None, edge, crop or own
    return (own if size is None else _pair(file, size)), None, crop


def _pair(file: Path, size: object) -> tuple[int, int]:
    sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    high, wide = sides
    if type(high) is not int or type(wide) is not int or not (0 < high < 1 << 14 and 0 < wide < 1 << 14):
        raise ConfigError(f"{file}: expected a size in pixels, found {size!r:.60}")
    return high, wide


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


def together(images: Iterable[tuple[NDArray[np.uint8], str]], count: int, graph: GraphImages) -> Tensor:
    """Images of one size as a batch, uint8 [N, H, W, C]; each is copied as it comes, so that none is held twice.

    Args:
        images: levels of each image, and where it lies.
        count: number of images, 1 or more.

    Raises:
        DataError: an image has another size than the first, or than the graph takes.
    """
    whole: NDArray[np.uint8] | None = None
    for place, (image, name) in enumerate(images):
        if whole is None:
            high, wide, channels = image.shape
            whole = np.empty((count, graph.height or high, graph.width or wide, channels), np.uint8)
        if image.shape != whole.shape[1:]:
            raise DataError(
                f"{name}: expected an image of {_sides(whole.shape[1:])}, found {_sides(image.shape)}; "
                f"say in {FILE} how images are resized"
            )
        whole[place] = image
    assert whole is not None
    return torch.from_numpy(whole)
