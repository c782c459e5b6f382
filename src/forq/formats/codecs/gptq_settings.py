"""The configuration of a GPTQ checkpoint: ``quantization_config``, or quantize_config.json in older files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import regex

from forq.checkpoints import Checkpoint
from forq.checkpoints.json_file import read_json
from forq.errors import FormatError
from forq.layers.codes import BITS

ZERO_OFFSETS: Mapping[str, int] = {"gptq": 1, "gptq_v2": 0}
"""By version of the format: what is added to a stored zero point."""
KEPT = "-:"
"""Prefix of a rule of ``dynamic`` that leaves layers in float."""
_REGEX_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class GPTQSettings:
    """The settings that decide how the tensors are read.

    Attributes:
        group_size: inputs that share a scale; −1 is a whole row.
        declared: the version that the configuration names, ``gptq`` (version 1) or ``gptq_v2``.
        sym: whether the configuration says that all zero points are 2^(bits − 1); None where it does not say.
    """

    bits: int
    group_size: int
    declared: str
    sym: bool | None


def settings(ckpt: Checkpoint) -> GPTQSettings:
    """The settings of a checkpoint.

    Raises:
        FormatError: a setting is missing, impossible or not supported.
    """
    raw = raw_settings(ckpt)
    where = f"{ckpt.path}: quantization_config"
    bits, group_size = raw.get("bits"), raw.get("group_size")
    if type(bits) is not int or type(group_size) is not int:
        raise FormatError(f"{where}: expected whole numbers for bits and group_size, found {bits!r}, {group_size!r}")
    if bits not in BITS:
        raise FormatError(f"{where}: expected {', '.join(map(str, BITS))} bits, found {bits}")
    if group_size < 1 and group_size != -1:
        raise FormatError(f"{where}: expected a positive group_size or -1, found {group_size}")
    declared = raw.get("checkpoint_format") or "gptq"
    if not isinstance(declared, str) or declared not in ZERO_OFFSETS:
        raise FormatError(
            f"{where}: expected checkpoint_format among {', '.join(ZERO_OFFSETS)}, found {declared!r}; "
            "the checkpoint is repacked for another kernel: load the original one"
        )
    dynamic = raw.get("dynamic")
    # Rules with a minus leave layers in float, which the tensors show as well.
    if dynamic and not (isinstance(dynamic, dict) and all(rule.startswith(KEPT) for rule in dynamic)):
        raise FormatError(f"{where}: expected one setting for all layers, found 'dynamic', which is not supported yet")
    if (rotation := _told(raw, "rotation")) is not None:
        raise FormatError(
            f"{where}: expected weights in the model's own coordinates, found rotation {rotation!r:.40}: GPTQModel "
            "turns the inputs of every down_proj by a Hadamard matrix at run time, which forq does not; quantize the "
            "model without it"
        )
    sym = raw.get("sym")
    if sym is not None and type(sym) is not bool:
        raise FormatError(f"{where}: expected sym to be true or false, found {sym!r}")
    return GPTQSettings(bits, group_size, declared, sym)


def raw_settings(ckpt: Checkpoint) -> Mapping[str, object]:
    """The configuration as the files hold it; empty where there is none."""
    config = ckpt.config.get("quantization_config")
    if isinstance(config, dict):
        return config
    older = ckpt.folder / "quantize_config.json"
    return read_json(older) if older.is_file() else {}


def adapter_note(ckpt: Checkpoint) -> tuple[str, ...]:
    """A sentence on an adapter that the configuration names, which is not among the checkpoint's tensors."""
    if not (adapter := _told(raw_settings(ckpt), "adapter")):
        return ()
    return (
        f"quantization_config names an adapter, {adapter!r:.80}, which GPTQModel adds to the layers; forq leaves it "
        "out: if it is in PEFT's format, give its folder by --adapter",
    )


def _told(raw: Mapping[str, object], name: str) -> object:
    """A setting of GPTQModel's own, which lies beside the others or under meta; None where it is off."""
    meta = raw.get("meta")
    return raw.get(name) or (meta.get(name) if isinstance(meta, dict) else None) or None


def check_kept(ckpt: Checkpoint, quantized: Sequence[str]) -> None:
    """Refuse rules of ``dynamic`` that leave a layer in float although it is quantized.

    Raises:
        FormatError: there is such a layer, or a rule is no expression that can be used.
    """
    where = f"{ckpt.path}: quantization_config: dynamic"
    rules = raw_settings(ckpt).get("dynamic")
    for rule in rules if isinstance(rules, dict) else ():
        for module in quantized:
            try:
                # The file chooses the expression, so its time is bounded.
                matches = regex.match(rule.removeprefix(KEPT), module, timeout=_REGEX_TIMEOUT_S)
            except (regex.error, TimeoutError) as error:
                raise FormatError(f"{where}: the rule {rule!r:.80} cannot be used: {error}") from error
            if matches:
                raise FormatError(f"{where}: the rule {rule!r:.80} leaves {module} in float, found it in integers")
