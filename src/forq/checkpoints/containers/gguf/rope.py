"""Rotary positions as llama.cpp reads them from a GGUF file, in transformers' terms.

With base b, scale s = 1 / factor and divisors f (``rope_freqs.weight``), pair i of n / 2 turns by

    none    θ = p · b^(−2i/n) / f_i
    linear  θ = s · p · b^(−2i/n) / f_i
    yarn    between the two by frequency, and cosine and sine times 1 + 0.1 · ln(factor)

and cosine and sine are multiplied by ``attn_factor`` whatever the type. Source: llama.cpp's loading
of hyper-parameters and ``ggml_rope_ext``; held to it by tests/oracles.
"""

from __future__ import annotations

from typing import Any

from forq.checkpoints.containers.gguf.keys import Keys

FACTORS = "rope_freqs.weight"
"""The tensor of divisors of the rotary frequencies (Llama 3), one for each frequency."""

_LEAST_CONTEXT = 7
"""Positions that yarn needs. Below 2π the ends of its ramp change places, from frequencies that turn
often to those that do not, and llama.cpp and transformers read that differently."""


def settings(keys: Keys, head: int, context: int) -> dict[str, Any]:
    """What a config.json would say of rotary positions.

    Args:
        keys: of the file.
        head: width of a head.
        context: positions the model was made for.

    Raises:
        FormatError: a scaling, or a part of a head, that llama.cpp or transformers does not rotate.
    """
    if (rotated := keys.whole("rope.dimension_count", head)) != head:
        expected = f"{head}, the width of a head (llama.cpp rotates whole heads),"
        raise keys.error(expected, "rope.dimension_count", rotated)
    if (base := keys.real("rope.freq_base", 10000.0)) <= 1.0:
        raise keys.error("a number above 1", "rope.freq_base", base)
    found: dict[str, Any] = {"rope_theta": base}
    # Without a type llama.cpp takes linear; a factor of 0 is none, and so is a type without a factor.
    kind, factor = keys.get("rope.scaling.type", "linear"), _factor(keys)
    if kind not in ("none", "linear", "yarn"):
        raise keys.error("none, linear or yarn", "rope.scaling.type", kind)
    if kind == "none" or factor == 1.0:
        return found
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        original = keys.whole("rope.scaling.original_context_length", context)
        if original < _LEAST_CONTEXT:
            raise keys.error(f"{_LEAST_CONTEXT} or more", "rope.scaling.original_context_length", original)
        scaling["original_max_position_embeddings"] = original
    return {**found, "rope_scaling": scaling}


def magnitude(keys: Keys) -> float:
    """What cosine and sine are multiplied by, beside what yarn multiplies them by."""
    return keys.real("rope.scaling.attn_factor", 1.0)


def _factor(keys: Keys) -> float:
    """The factor of a scaling; the old key counts where the new one is absent."""
    name = "rope.scaling.factor" if keys.get("rope.scaling.factor") is not None else "rope.scale_linear"
    return 1.0 if keys.get(name, 0.0) == 0.0 else keys.real(name)
