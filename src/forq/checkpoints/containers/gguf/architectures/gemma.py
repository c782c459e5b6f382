"""Gemma 1, 2 and 3 (text). Files store the weights of norms with 1 added, which transformers adds in the forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forq.checkpoints.containers.gguf.architectures.architecture import Architecture, Described
from forq.checkpoints.containers.gguf.architectures.common import (
    ATTENTION,
    GATED,
    NORMS,
    QK_NORMS,
    SANDWICH,
    TIED,
    WINDOWS,
    rms,
    sizes,
    windows,
)

_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
"""Number of blocks of the models of 27B: their queries are scaled by the width of the model over the heads. No key
says so; llama.cpp recognises them by this number."""
_SOFTCAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
"""Keys of Gemma 2 and llama.cpp's defaults."""


def _settings(file: Described) -> dict[str, Any]:
    by_width = _SCALED_BY_WIDTH.get(file.keys.kind) == file.layers
    scaling = {"query_pre_attn_scalar": file.width // file.heads if by_width else file.head}
    return {
        **sizes(file),
        **rms(file),
        **file.rope(),
        **scaling,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _gemma2(file: Described) -> dict[str, Any]:
    caps = {name: file.keys.real(name, usual) for name, usual in _SOFTCAPS.items()}
    base = file.keys.real("rope.freq_base", 10000.0)
    if (local := file.keys.real("rope.freq_base_swa", base)) != base:
        raise file.keys.error(f"{base}, as rope.freq_base,", "rope.freq_base_swa", local)
    size = file.keys.whole("attention.sliding_window", 4096)
    return {**_settings(file), **caps, **windows(file, size, 2)}


def _gemma3(file: Described) -> dict[str, Any]:
    """Blocks with a window rotate by a base of their own, and no scaling of positions applies to them."""
    local = file.keys.real("rope.freq_base_swa", 10000.0)
    cap = file.keys.factor("final_logit_softcapping", 0.0)
    own = {"rope_local_base_freq": local, "final_logit_softcapping": cap or None}
    if not file.keys.get("attention.sliding_window", 0):
        return {**_settings(file), **own, "layer_types": ["full_attention"] * file.layers}
    return {**_settings(file), **own, **windows(file, file.keys.whole("attention.sliding_window"), 6)}


ENTRIES: Mapping[str, Architecture] = {
    "gemma": Architecture(
        "gemma", "GemmaForCausalLM", _settings, TIED, {**NORMS, **ATTENTION, **GATED}, norms_added=1.0
    ),
    "gemma2": Architecture(
        "gemma2",
        "Gemma2ForCausalLM",
        _gemma2,
        TIED,
        {**SANDWICH, **ATTENTION, **GATED},
        norms_added=1.0,
        keys=WINDOWS | _SOFTCAPS.keys(),
    ),
    "gemma3": Architecture(
        "gemma3_text",
        "Gemma3ForCausalLM",
        _gemma3,
        TIED,
        {**SANDWICH, **ATTENTION, **QK_NORMS, **GATED},
        norms_added=1.0,
        keys=WINDOWS | {"final_logit_softcapping"},
    ),
}
