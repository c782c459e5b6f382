"""The files beside a model's weights that a rewritten folder keeps."""

from __future__ import annotations

from pathlib import Path

from forq.checkpoints.patch import files_of
from forq.models.adapters.settings import CONFIG as ADAPTER
from forq.models.pooling import modules

# Weights of any format; they are not copied, since the new folder must not hold the old model too.
_WEIGHTS = (
    *(".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf", ".onnx"),
    *(".h5", ".msgpack"),
)

SETTINGS = ("quantize_config.json", "quant_config.json")
"""Older places of ``quantization_config``, which some loaders read before config.json."""


def companions(folder: Path) -> list[str]:
    """Names of the files to copy, relative to the folder: all but the weights, older settings, an adapter's
    settings and other models.

    Folders of ``modules.json`` (sentence-transformers' pooling, for example) are kept whole. Any other sub-folder
    with weights is another model or another form of this one (``onnx``, ``adapter``, ``checkpoint-500``): it is left
    out, since its settings would describe weights that are not there.

    Raises:
        FormatError: modules.json is not what sentence-transformers writes.
    """
    files = files_of(folder)
    own = {_top(f"{place}/") for kind, place in modules(folder) if kind != "Transformer"} - {""}
    weights = {name for name in files if name.lower().endswith(_WEIGHTS)}
    models = {_top(name) for name in weights} - own - {""}
    left_out = {*weights, *SETTINGS, ADAPTER}  # of an adapter: transformers would look for its factors
    return [name for name in files if _top(name) in own or (name not in left_out and _top(name) not in models)]


def _top(name: str) -> str:
    """The first folder of a path; "" for a file that lies in none."""
    return name.partition("/")[0] if "/" in name else ""
