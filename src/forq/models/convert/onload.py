"""``--quantize-on-load``: quantize a float checkpoint into the run's folder, then tune the result.

Codes are rounded to nearest, so the same checkpoint gives the same base, bit for bit, on every
machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.models.convert.layers import linear_layers
from forq.models.convert.quantize import quantize
from forq.plugins import registry

KNOWN = ("gptq2", "gptq3", "gptq4", "gptq8", "nf4", "fp4")
_GROUPS = (64, 32, 16)


def quantized(source: str | Path, how: str, out: Path) -> Path:
    """Make the quantized base in ``out``, or reuse the one an earlier call made there.

    Args:
        source: a float checkpoint: a folder or a hub id.
        how: format and bits, one of :data:`KNOWN`. For gptq, the group size is the largest of 64,
            32 and 16 that divides the inputs of every layer, else a whole row. Blocks of nf4 and
            fp4 always have 64 values.
        out: folder of the base. Folders appear whole or not at all, so an existing one is complete.

    Raises:
        ConfigError: the format is unknown, or a layer does not fit it.
        FormatError: the source is damaged or already quantized.
    """
    match = re.fullmatch(r"gptq([2348])|nf4|fp4", how)
    if match is None:
        raise ConfigError(
            f"--quantize-on-load: expected one of {', '.join(KNOWN)}, found {how!r}{registry.nearest(how, KNOWN)}"
        )
    to, bits = ("gptq", int(match[1])) if match[1] else (how, 4)
    if out.is_dir():
        made = Checkpoint.open(out).config.get("quantization_config", {})
        present = f"gptq{made['bits']}" if "bits" in made else made.get("bnb_4bit_quant_type")
        if present != how:
            raise ConfigError(f"{out}: expected a base made as {how}, found {present}; remove it first")
    else:
        ckpt = Checkpoint.open(source)
        if "quantization_config" in ckpt.config:
            raise FormatError(f"{ckpt.path}: expected a float checkpoint, found one that is quantized already: tune it")
        widths = {layer.columns for layer in linear_layers(ckpt).values()}
        size = next((size for size in _GROUPS if not any(columns % size for columns in widths)), -1)
        quantize(source, out, bits=bits, group_size=size if to == "gptq" else _GROUPS[0], to=to)
    return out
