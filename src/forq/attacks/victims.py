"""Open a victim by its name."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from forq.errors import ConfigError
from forq.plugins.networks import Predict, open_network

log = logging.getLogger("forq")

_PREPROCESSOR = "preprocessor_config.json"


def open_victim(
    name: str, *, floats: bool, threads: int | None = None, output: str | None = None
) -> tuple[Predict, str]:
    """The function with that name, and a digest of its file (of an ONNX file's external data, too).

    A warning names a preprocessor_config.json beside a file, which changes what the network takes.

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
            "%s gets images in 0 … 1; %s beside it, which normalizes them further or reorders their channels, is not "
            "followed. If the graph does not do that itself, attack a function that does: file.py:function",
            name,
            beside.name,
        )
    return network.predict, network.digest


def _normalises(file: Path) -> Path | None:
    """A preprocessor_config.json of the network that asks for more than levels divided by 255."""
    above = [file.parent.parent] if file.parent.name == "onnx" else []
    for beside in (folder / _PREPROCESSOR for folder in (file.parent, *above)):
        try:
            told = json.loads(beside.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(told, dict) and (told.get("do_normalize", True) or told.get("do_flip_channel_order")):
            return beside
    return None


def _beside(path: Path) -> Sequence[str]:
    # Imported when a file may need it: this imports torch, and other ONNX victims do without.
    from forq.checkpoints.containers.onnx import external

    return external.files(path)
