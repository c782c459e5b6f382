"""``--quantize-on-load``: a float checkpoint is quantized into the run's folder first, and that is what is tuned.

Codes come from rounding to nearest, so the same checkpoint gives the same base, bit for bit, on every machine.
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
    """Make the quantized base in ``out``, or find it there.

    Args:
        source: a float checkpoint: a folder or a hub id.
        how: format and bits, one of :data:`KNOWN`. Groups are of 64 inputs, or of the largest of 32 and 16 that divides
            the inputs of every layer, else a whole row; blocks of nf4 and fp4 are of 64 values always.
        out: the folder; one that is there already was made by an earlier call, as folders appear whole or not at all.

    Raises:
        ConfigError: no such format; a layer does not fit it.
        FormatError: the source is damaged, or quantized already.
    """
    found = re.fullmatch(r"gptq([2348])|nf4|fp4", how)
    if found is None:
        raise ConfigError(
            f"--quantize-on-load: expected one of {', '.join(KNOWN)}, found {how!r}{registry.nearest(how, KNOWN)}"
        )
    to, bits = ("gptq", int(found[1])) if found[1] else (how, 4)
    if out.is_dir():
        made = Checkpoint.open(out).config.get("quantization_config", {})
        there = f"gptq{made['bits']}" if "bits" in made else made.get("bnb_4bit_quant_type")
        if there != how:
            raise ConfigError(f"{out}: expected a base made as {how}, found {there}; remove it first")
    else:
        ckpt = Checkpoint.open(source)
        if "quantization_config" in ckpt.config:
            raise FormatError(f"{ckpt.path}: expected a float checkpoint, found one that is quantized already: tune it")
        widths = {layer.columns for layer in linear_layers(ckpt).values()}
        size = next((size for size in _GROUPS if not any(columns % size for columns in widths)), -1)
        quantize(source, out, bits=bits, group_size=size if to == "gptq" else _GROUPS[0], to=to)
    return out
