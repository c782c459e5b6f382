"""Rotary position settings of a GGUF file, as llama.cpp reads them, translated to transformers.

With base b, scale s = 1 / factor and divisors f (``rope_freqs.weight``), pair i of n / 2 turns by

    none    θ = p · b^(−2i/n) / f_i
    linear  θ = s · p · b^(−2i/n) / f_i
    yarn    between the two by frequency, and cosine and sine times 1 + 0.1 · ln(factor)

For every type, cosine and sine are also multiplied by ``attn_factor``. Source: llama.cpp's loading of
hyper-parameters and ``ggml_rope_ext``; tests/oracles compare with it.
"""

from __future__ import annotations

from typing import Any

from forq.checkpoints.containers.gguf.keys import Keys

FACTORS = "rope_freqs.weight"
"""Name of the tensor of divisors (Llama 3), one for each rotary frequency."""

_LEAST_CONTEXT = 7
"""Least original context length for yarn. Below 2π the two ends of its ramp are swapped, which llama.cpp
and transformers treat differently."""


def settings(keys: Keys, head: int, context: int, *, partial: bool = False, by_factors: bool = False) -> dict[str, Any]:
    """The rotary position settings of config.json.

    Args:
        keys: the file's keys.
        head: width of a head.
        context: the model's context length.
        partial: the architecture may rotate a part of each head.
        by_factors: the architecture may scale by factors alone, which lie in a tensor (longrope).

    Raises:
        FormatError: the scaling type is not supported, or only a part of each head is rotated where
            llama.cpp rotates whole heads.
    """
    rotated = keys.whole("rope.dimension_count", head)
    if partial and (rotated > head or rotated % 2):
        raise keys.error(f"an even number up to {head}, the width of a head,", "rope.dimension_count", rotated)
    if not partial and rotated != head:
        expected = f"{head}, the width of a head (llama.cpp rotates whole heads),"
        raise keys.error(expected, "rope.dimension_count", rotated)
    if (base := keys.real("rope.freq_base", 10000.0)) <= 1.0:
        raise keys.error("a number above 1", "rope.freq_base", base)
    unscaled: dict[str, Any] = {"rope_theta": base}
    if partial:
        # transformers multiplies by the head's width and rounds down.
        exact = rotated / head
        unscaled["partial_rotary_factor"] = exact if int(head * exact) == rotated else (rotated + 0.5) / head
    # llama.cpp defaults to linear. A factor of 0, or none, means no scaling.
    kind, factor = keys.get("rope.scaling.type", "linear"), _factor(keys)
    if by_factors and kind == "longrope":
        kind = "linear"
    if kind not in ("none", "linear", "yarn"):
        raise keys.error("none, linear or yarn", "rope.scaling.type", kind)
    if kind == "none" or factor == 1.0:
        return unscaled
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        original = keys.whole("rope.scaling.original_context_length", context)
        if original < _LEAST_CONTEXT:
            raise keys.error(f"{_LEAST_CONTEXT} or more", "rope.scaling.original_context_length", original)
        scaling["original_max_position_embeddings"] = original
    return {**unscaled, "rope_scaling": scaling}


def magnitude(keys: Keys) -> float:
    """Factor of cosine and sine, in addition to yarn's own factor."""
    return keys.real("rope.scaling.attn_factor", 1.0)


def _factor(keys: Keys) -> float:
    """The scaling factor; the old key is used if the new one is missing."""
    name = "rope.scaling.factor" if keys.get("rope.scaling.factor") is not None else "rope.scale_linear"
    return 1.0 if keys.get(name, 0.0) == 0.0 else keys.real(name)
