"""One quantized layer out of its file, checked for numbers that are none."""

from __future__ import annotations

from types import ModuleType

from forq.checkpoints import Checkpoint, finite
from forq.layers.layer import LayerSpec, Parts


def read(form: ModuleType, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
    """What a format reads of a layer.

    Raises:
        FormatError: a continuous tensor or the bias holds NaN or infinity (named), or see the format.
    """
    parts: Parts = form.read(ckpt, spec)
    for live, tensor in zip(spec.live, parts.live, strict=True):
        finite.check(live.name, tensor)
    if spec.bias is not None and parts.bias is not None:
        finite.check(spec.bias, parts.bias)
    return parts
