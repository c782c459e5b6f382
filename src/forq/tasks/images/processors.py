"""What a preprocessor_config.json leaves to the class that wrote it: the defaults of transformers' image processors.

Only classes whose every step :class:`forq.tasks.images.preprocessing.Preprocessing` can do are listed. Compared with
the PIL processors of transformers 5.23.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CLASS = "class"
"""Field for the class's name, beside those that a file has."""
_BILINEAR, _BICUBIC = 2, 3
_HALF: Mapping[str, Any] = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_IMAGENET: Mapping[str, Any] = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CLIP: Mapping[str, Any] = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _to_square(side: int, resample: int, levels: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Resized to a square; a size that is a number is a square too."""
    return {"do_resize": True, "size": _square(side), "resample": resample, "do_normalize": True, **levels, **more}


def _to_shortest(side: int, resample: int, levels: Mapping[str, Any], crop: int | None, **more: Any) -> dict[str, Any]:
    """Resized by the shorter side, which a size that is a number means too, and cropped to the middle."""
    cropped = {} if crop is None else {"do_center_crop": True, "crop_size": _square(crop)}
    resized = {"do_resize": True, "size": {"shortest_edge": side}, "resample": resample, "default_to_square": False}
    return {**resized, **cropped, "do_normalize": True, **levels, **more}


PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "ViT": _to_square(224, _BILINEAR, _HALF),
    "DeiT": _to_square(256, _BICUBIC, _HALF, do_center_crop=True, crop_size=_square(224)),
    "Beit": _to_square(224, _BICUBIC, _HALF, crop_size=_square(224)),
    "Pvt": _to_square(224, _BICUBIC, _IMAGENET),
    "Segformer": _to_square(512, _BILINEAR, _IMAGENET),
    "Siglip": _to_square(224, _BICUBIC, _HALF, default_to_square=False),
    "CLIP": _to_shortest(224, _BICUBIC, _CLIP, 224),
    "Bit": _to_shortest(224, _BICUBIC, _CLIP, 224),
    "MobileNetV1": _to_shortest(256, _BILINEAR, _HALF, 224),
    "MobileNetV2": _to_shortest(256, _BILINEAR, _HALF, 224),
    "MobileViT": _to_shortest(224, _BICUBIC, {}, 256, do_flip_channel_order=True),
    "Levit": _to_shortest(224, _BICUBIC, _IMAGENET, 224),
    "ConvNext": _to_shortest(384, _BICUBIC, _HALF, None, crop_pct=224 / 256),
    "PoolFormer": _to_shortest(224, _BICUBIC, _IMAGENET, 224, crop_pct=0.9),
}
"""Default fields by the class's name without ``ImageProcessor``, ``ImageProcessorFast`` or ``FeatureExtractor``."""


def processor_of(name: str) -> str | None:
    """The name in :data:`PROCESSORS` of the class that a file names; None: forq does not know the class."""
    found = re.fullmatch(r"(\w+?)(ImageProcessor|ImageProcessorFast|FeatureExtractor)", name)
    return found[1] if found is not None and found[1] in PROCESSORS else None
