"""What a model is asked for."""

from __future__ import annotations

from typing import Literal

Kind = Literal["causal", "masked", "encoder", "diffusion"]
"""What a model is asked for: the next token, the token at a mask, hidden states alone, or which way noise lies."""
