"""Models of transformers and diffusers, built around the quantized layers of a checkpoint."""

from __future__ import annotations

from forq.models.convert.quantize import quantize
from forq.models.leaves import trainable
from forq.models.load import load

__all__ = ["load", "quantize", "trainable"]
