"""Open a victim by its name."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forq.errors import ConfigError
from forq.plugins.networks import Predict, open_network

log = logging.getLogger("forq")

_PREPROCESSORS = ("processor_config.json", "preprocessor_config.json", "config.json")
"""Files of transformers, the first for texts and images together, and of timm."""


def open_victim(
    name: str, *, floats: bool, threads: int | None = None, output: str | None = None
) -> tuple[Predict, str]:
    """The function with that name, and a digest of its file (of an ONNX file's external data, too).

    A warning names a file of transformers or timm beside a network, which changes what the network takes.

    Args:
        name: a name as :func:`forq.plugins.networks.open_network` takes it.
        floats: whether the victim must take float32 [N, C, H, W] in 0 … 1.
        threads: threads of an ONNX session; ``None``: ONNX Runtime's default.
        output: name of the output with the scores; ``None``: the only output.

    Raises:
        ConfigError: unknown victim or output, several outputs and none chosen, or wrong input type.
        FormatError: the file is damaged, or it could only be read by unpickling.
    """
    network = open_network(name, "VICTIM", _beside, threads, output, "name the one that holds the scores with --output")
    if network.input is not None and network.input.floats != floats:
        wanted = "uint8" if network.input.floats else "float32"
        dtype, option = ("float32", "float (NCHW, 0 … 1)") if network.input.floats else ("uint8", "uint8")
        raise ConfigError(f"{name}: expected {wanted} input, found {dtype}; add --input {option}")
    if floats and network.input is not None and (beside := _normalises(Path(name))) is not None:
        log.warning(
            "%s gets images in 0 … 1; %s beside it, which normalizes them further, reorders their channels or scales "
            "them otherwise, is not followed. If the graph does not do that itself, attack a function that does: "
            "file.py:function",
            name,
            beside.name,
        )
    return network.predict, network.digest


def _normalises(file: Path) -> Path | None:
    """A file beside the network by which it takes something else than levels divided by 255."""
    above = [file.parent.parent] if file.parent.name == "onnx" else []
    for beside in (folder / name for folder in (file.parent, *above) for name in _PREPROCESSORS):
        try:
            told = json.loads(beside.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(told, dict) and _asks_for_more(beside.name, told):
            return beside
    return None


def _asks_for_more(name: str, told: Mapping[str, Any]) -> bool:
    if name == "config.json":
        return _by_timm(told)
    own = told.get("image_processor") if name == "processor_config.json" else told
    return isinstance(own, dict) and _further(own)


def _further(own: Mapping[str, Any]) -> bool:
    """Whether an image processor of transformers does more than divide levels by 255, or does not divide them."""
    factor = own.get("rescale_factor", 1 / 255) if own.get("do_rescale", True) else 1.0
    scaled = isinstance(factor, int | float) and abs(factor * 255 - 1) < 1e-3
    return not scaled or bool(own.get("do_normalize", True) or own.get("do_flip_channel_order"))


def _by_timm(told: Mapping[str, Any]) -> bool:
    """Whether a config.json is timm's, and subtracts a mean or divides by a deviation."""
    own = told.get("pretrained_cfg", told)
    if "architecture" not in told or not isinstance(own, dict):
        return False
    return own.get("mean") not in (None, [0, 0, 0]) or own.get("std") not in (None, [1, 1, 1])


def _beside(path: Path) -> Sequence[str]:
    # Imported when a file may need it: this imports torch, and other ONNX victims do without.
    from forq.checkpoints.containers.onnx import external

    return external.files(path)
