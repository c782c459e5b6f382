"""The table of GGUF architectures. A new architecture is one entry in a file of this folder, listed here."""

from __future__ import annotations

from collections.abc import Mapping

from forq.checkpoints.containers.gguf.architectures import bert, cohere, gemma, gpt, llama, phi
from forq.checkpoints.containers.gguf.architectures.architecture import Architecture
from forq.checkpoints.containers.gguf.architectures.refused import REFUSED

ARCHITECTURES: Mapping[str, Architecture] = {
    **llama.ENTRIES,
    **gemma.ENTRIES,
    **phi.ENTRIES,
    **cohere.ENTRIES,
    **gpt.ENTRIES,
    **bert.ENTRIES,
}
"""The entries by the value of general.architecture."""

__all__ = ["ARCHITECTURES", "REFUSED", "Architecture"]
