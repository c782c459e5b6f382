"""Read a quantized layer and check that its numbers are finite."""

from __future__ import annotations

from forq.checkpoints import Checkpoint, finite
from forq.formats import Format
from forq.layers.layer import LayerSpec, Parts


def read(form: Format, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
    """The parts of a layer, as its format reads them.

    Raises:
        FormatError: a continuous tensor or the bias holds NaN or infinity (the tensor is named), or
            the format refuses the layer.
    """
    parts = form.read(ckpt, spec)
    for live, tensor in zip(spec.live, parts.live, strict=True):
        finite.check(live.name, tensor)
    if spec.bias is not None and parts.bias is not None:
        finite.check(spec.bias, parts.bias)
    return parts
