"""From an image to the numbers that a network takes, as a preprocessor_config.json and the class that wrote it say.

levels   resized, cropped to the middle, uint8 [H, W, C]
x        (levels · factor − mean) / std, float32, where the network takes floats; otherwise the levels themselves
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import DataError

FILE = "preprocessor_config.json"


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
        rounds: whether half a pixel beside the crop is rounded to the even number, as in torchvision; else down, as in
            transformers.
    """

    size: tuple[int, int] | None = None
    shortest: int | None = None
    crop: tuple[int, int] | None = None
    factor: float = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resample: int = 2
    reverse: bool = False
    rounds: bool = False

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
            around = (picture.width - self.crop[1], picture.height - self.crop[0])
            left, top = (round(beside / 2) if self.rounds else beside // 2 for beside in around)
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


def _sides(size: Sequence[int]) -> str:
    """Height and width in words."""
    return f"{size[0]} by {size[1]}"


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
