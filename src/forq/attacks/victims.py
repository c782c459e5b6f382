"""Open a victim by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forq.errors import ConfigError
from forq.plugins.networks import Predict, open_network


def open_victim(
    name: str, *, floats: bool, threads: int | None = None, output: str | None = None
) -> tuple[Predict, str]:
    """The function with that name, and a digest of its file (of an ONNX file's external data, too).

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
    return network.predict, network.digest


def _beside(path: Path) -> Sequence[str]:
    # Imported when a file may need it: this imports torch, and other ONNX victims do without.
    from forq.checkpoints.containers.onnx import external

    return external.files(path)
