"""Formats: codecs between a checkpoint and quantized weights; one file is one :class:`~forq.formats.base.Format`."""

from __future__ import annotations

from collections.abc import Iterator

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.base import About, ExportableFormat, Format
from forq.plugins import registry

__all__ = ["About", "ExportableFormat", "Format", "all_formats", "exportable", "get", "recognised"]


_HINTS = {
    "auto-round": (
        ". AutoRound's own layout often holds the tensors of GPTQ: write the model again with AutoRound's "
        'save_quantized(…, format="auto_gptq")'
    )
}
"""What to do about a quant_method that no format recognises."""


def get(name: str) -> Format:
    """The format of a name, such as ``gptq``.

    Raises:
        ConfigError: there is no such format; the message lists the known ones and the nearest.
    """
    found: Format = registry.get("formats", name).format
    return found


def all_formats() -> Iterator[Format]:
    """Every format, sorted by name."""
    return map(get, registry.names("formats"))


def exportable() -> dict[str, ExportableFormat]:
    """The formats that ``forq export --to`` can write, by name as people write it: ``compressed-tensors``."""
    return {form.name.replace("_", "-"): form for form in all_formats() if isinstance(form, ExportableFormat)}


def recognised(ckpt: Checkpoint) -> Format | None:
    """The format of a checkpoint's quantized layers, or None where every tensor is float.

    Raises:
        FormatError: the configuration says quantized, and no format recognises the tensors.
    """
    for candidate in all_formats():
        if candidate.recognise(ckpt):
            return candidate
    declared = ckpt.config.get("quantization_config")
    if declared is None:
        return None
    method = declared.get("quant_method") if isinstance(declared, dict) else declared
    raise FormatError(
        f"{ckpt.path}: expected a format among {', '.join(registry.names('formats'))}; found quant_method {method!r} "
        f"with tensors none of them recognises{_HINTS.get(str(method), '')}"
    )
