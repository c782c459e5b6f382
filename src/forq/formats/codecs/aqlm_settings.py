"""The configuration of an AQLM checkpoint, ``quantization_config`` in config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forq.checkpoints import Checkpoint
from forq.errors import FormatError

DEFAULTS = {"in_group_size": 8, "out_group_size": 1, "num_codebooks": 1, "nbits_per_codebook": 16}
_MOST = {"in_group_size": 1 << 16, "out_group_size": 1 << 16, "num_codebooks": 1 << 10, "nbits_per_codebook": 16}


@dataclass(frozen=True, slots=True)
class AQLMSettings:
    """The settings that decide how the tensors are read."""

    in_group: int
    out_group: int
    codebooks: int
    bits: int


def settings(ckpt: Checkpoint) -> AQLMSettings:
    """The settings of a checkpoint; those that are absent have the library's defaults.

    Raises:
        FormatError: a setting is impossible.
    """
    raw, values = raw_settings(ckpt), []
    for name, default in DEFAULTS.items():
        value = raw.get(name, default)
        if type(value) is not int or not 1 <= value <= _MOST[name]:
            raise FormatError(
                f"{ckpt.path}: quantization_config.{name}: expected 1 … {_MOST[name]}, found {value!r:.80}; "
                "use the quantization_config this file was made with"
            )
        values.append(value)
    return AQLMSettings(*values)


def raw_settings(ckpt: Checkpoint) -> Mapping[str, object]:
    """The configuration as the file holds it; empty where there is none."""
    config = ckpt.config.get("quantization_config")
    return config if isinstance(config, dict) else {}
