"""Victims from names."""

from __future__ import annotations

from forq.errors import ConfigError
from forq.plugins.networks import Predict, open_network


def open_victim(
    name: str, *, floats: bool, threads: int | None = None, output: str | None = None
) -> tuple[Predict, str]:
    """The function a name means, and a digest of the file behind it.

    Args:
        name: as :func:`forq.plugins.networks.open_network` takes it.
        floats: it is to take float32 [N, C, H, W] in 0 … 1.
        threads: of an ONNX session; ``None``: as many as ONNX Runtime likes.
        output: which of a file's outputs holds the scores; ``None``: its only one.

    Raises:
        ConfigError: no such victim or output, several outputs and none named, or it takes another input.
        FormatError: the file is broken or would have to be unpickled.
    """
    found = open_network(name, "VICTIM", threads, output, "name the one that holds the scores with --output")
    if found.input is not None and found.input.floats != floats:
        has, option = ("float32", "--input float") if found.input.floats else ("uint8", "--input uint8")
        also = " (NCHW, 0 … 1)" if found.input.floats else ""
        raise ConfigError(f"{name}: its input is {has}: add {option}{also}")
    return found.predict, found.digest
