"""What torchao writes about a weight into a safetensors header, as JSON under the weight's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from forq.errors import FormatError

TYPES = {"Int8Tensor": False, "IntxUnpackedToInt8Tensor": True}
"""The supported kinds of weights, and whether their zero points count."""
_TARGETS = {"int2": 2, "int3": 3, "int4": 4, "int8": 8}


@dataclass(frozen=True, slots=True)
class Description:
    """The description of a weight.

    Attributes:
        bits: of a code.
        block: outputs and inputs that share a scale.
        points: whether zero points count.
        inputs: what the layer rounds its inputs to, in words; None: they stay in float.
    """

    bits: int
    block: tuple[int, int]
    points: bool
    inputs: str | None


def described(text: Mapping[str, str], module: str) -> Description:
    """The description of a module's weight.

    Raises:
        FormatError: there is none, or the kind of weight is not supported.
    """
    name = f"{module}.weight"
    try:
        found = json.loads(text.get(name, "null"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: expected JSON in the file's header, found {error}") from error
    data = found.get("_data") if isinstance(found, dict) else None
    if not isinstance(data, dict):
        raise FormatError(
            f"{name}: expected a description in the file's header beside _weight_qdata, found {text.get(name)!r:.80}; "
            "save it again with transformers and torchao 0.15 or newer"
        )
    kind = found.get("_type")
    if kind not in TYPES if isinstance(kind, str) else True:
        raise FormatError(
            f"{name}: expected a weight among {', '.join(TYPES)}, found {kind!r:.80}; other kinds are laid out for a "
            "kernel: quantize the model with IntxWeightOnlyConfig or Int8WeightOnlyConfig"
        )
    bits = 8
    if TYPES[kind]:
        target = data.get("target_dtype")
        named = target.get("_data") if isinstance(target, dict) else None
        if not isinstance(named, str) or named not in _TARGETS:
            raise FormatError(f"{name}: expected a target_dtype among {', '.join(_TARGETS)}, found {named!r:.80}")
        bits = _TARGETS[named]
    block = data.get("block_size")
    if not isinstance(block, list) or len(block) != 2 or not all(type(size) is int and size > 0 for size in block):
        raise FormatError(f"{name}: expected a block_size of two whole numbers, found {block!r:.80}")
    rounded = data.get("activation_quantization" if TYPES[kind] else "act_quant_kwargs") is not None
    return Description(bits, (block[0], block[1]), TYPES[kind], "8 bits" if rounded else None)
