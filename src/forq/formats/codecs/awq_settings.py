"""The configuration of an AWQ checkpoint: ``quantization_config``, or quant_config.json in older files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forq.checkpoints import Checkpoint
from forq.checkpoints.json_file import read_json
from forq.errors import FormatError

BITS = 4


@dataclass(frozen=True, slots=True)
class AWQSettings:
    """The settings that decide how the tensors are read."""

    group_size: int


def settings(ckpt: Checkpoint) -> AWQSettings:
    """The settings of a checkpoint.

    Raises:
        FormatError: a setting is missing or impossible, or names another layout than ``gemm``.
    """
    raw = raw_settings(ckpt)
    where = f"{ckpt.path}: quantization_config"
    bits, group_size = raw.get("bits", raw.get("w_bit")), raw.get("group_size", raw.get("q_group_size"))
    if type(bits) is not int or type(group_size) is not int:
        raise FormatError(f"{where}: expected whole numbers for bits and group_size, found {bits!r}, {group_size!r}")
    layout = raw.get("version") or raw.get("format") or raw.get("checkpoint_format") or "gemm"
    if not isinstance(layout, str) or layout.lower() != "gemm" or raw.get("backend") == "llm-awq":
        layout = "llm-awq" if raw.get("backend") == "llm-awq" else layout
        raise FormatError(
            f"{where}: expected version 'gemm', found {layout!r}, which packs the same tensors in another way: "
            "load the gemm version of this checkpoint"
        )
    if bits != BITS:
        raise FormatError(
            f"{where}: expected 4 bits, found {bits}; writers do not agree on the order of AWQ's codes at other widths"
        )
    if group_size < 1 and group_size != -1:
        raise FormatError(f"{where}: expected a positive group_size or -1, found {group_size}")
    return AWQSettings(group_size)


def raw_settings(ckpt: Checkpoint) -> Mapping[str, object]:
    """The configuration as the files hold it; empty where there is none."""
    config = ckpt.config.get("quantization_config")
    if isinstance(config, dict):
        return config
    older = ckpt.folder / "quant_config.json"
    return read_json(older) if older.is_file() else {}
