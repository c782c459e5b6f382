"""The rotary scaling of a GGUF file as settings of config.json, for folders, which have no tensor for it."""

from __future__ import annotations

import torch

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.models.convert.gguf.header import rope_factors
from forq.models.skeleton import configuration

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What the releases of Llama 3.1 to 3.3 share; their factors are 8 and 32."""


def rotary_settings(ckpt: Checkpoint) -> dict[str, object]:
    """The settings that stand for the factors and the magnitude of a file; empty where it has neither.

    Raises:
        FormatError: no setting that transformers reads stands for them.
    """
    values = ckpt.contents.values
    name = values.get("rope_factors")
    if name is not None and "rope_magnitude" not in values and "rope_scaling" not in ckpt.config:
        found = ckpt.read(name).float()
        settings: dict[str, object] = {"rope_scaling": {"rope_type": "llama3", "factor": float(found.max()), **_LLAMA3}}
        stated = rope_factors(configuration({**ckpt.config, **settings}))
        if stated is not None and stated.shape == found.shape and torch.allclose(stated, found, rtol=1e-5, atol=0.0):
            return settings
    if name is not None or "rope_magnitude" in values:
        what = name or "an attention factor of its own"
        raise FormatError(
            f"{ckpt.path}: expected rotary positions that config.json can state, found {what}; a folder would lose it, "
            "so this file cannot be exported"
        )
    return {}
