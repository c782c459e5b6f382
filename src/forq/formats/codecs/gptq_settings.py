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
VERSION_KEYS = ("checkpoint_format", "format")
"""Keys that name the version. transformers and vLLM read the first, GPTQModel writes both and reads the second."""
KEPT = "-:"
"""Prefix of a rule of ``dynamic`` that leaves layers in float."""
_REGEX_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class GPTQSettings:
    """The settings that decide how the tensors are read.

    Attributes:
        group_size: inputs that share a scale; −1 is a whole row.
        declared: the version that the configuration names, ``gptq`` (version 1) or ``gptq_v2``.
        key: the key that names it.
        sym: whether the configuration says that all zero points are 2^(bits − 1); None where it does not say.
    """

    bits: int
    group_size: int
    declared: str
    key: str
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
    named = _versions(raw)
    for key, declared in named.items():
        if declared not in ZERO_OFFSETS:
            raise FormatError(
                f"{where}: expected {key} among {', '.join(ZERO_OFFSETS)}, found {declared!r}; "
                "the checkpoint is repacked for another kernel: load the original one"
            )
    key, declared = next(iter(named.items()), (VERSION_KEYS[0], "gptq"))
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
    return GPTQSettings(bits, group_size, declared, key, sym)


def raw_settings(ckpt: Checkpoint) -> Mapping[str, object]:
    """The configuration as the files hold it; empty where there is none."""
    config = ckpt.config.get("quantization_config")
    if isinstance(config, dict):
        return config
    older = ckpt.folder / "quantize_config.json"
    return read_json(older) if older.is_file() else {}


def versions_note(ckpt: Checkpoint) -> str:
    """A sentence where two keys name two versions; "" where they agree."""
    named = _versions(raw_settings(ckpt))
    if len(set(named.values())) < 2:
        return ""
    return (
        f"quantization_config says {' and '.join(f'{key} {value!r}' for key, value in named.items())}; forq follows "
        "checkpoint_format, as transformers and vLLM do; GPTQModel follows format, and its zero points differ by one: "
        "remove the wrong one"
    )


def older_note(ckpt: Checkpoint) -> tuple[str, ...]:
    """A sentence on a quantize_config.json that says something else than config.json."""
    raw, older = raw_settings(ckpt), ckpt.folder / "quantize_config.json"
    if raw is not ckpt.config.get("quantization_config") or not older.is_file():
        return ()
    here, there = _stated(raw), _stated(read_json(older))
    unlike = [key for key in here if key in there and here[key] != there[key]]
    if not unlike:
        return ()
    one, other = (", ".join(f"{key} {told[key]!r:.40}" for key in unlike) for told in (there, here))
    return (
        f"quantize_config.json says {one}, and config.json {other}; forq follows config.json, as transformers and vLLM "
        "do; GPTQModel follows quantize_config.json",
    )


def _stated(raw: Mapping[str, object]) -> dict[str, object]:
    """The settings that decide how tensors are read, as far as a configuration states them."""
    stated = {key: raw[key] for key in ("bits", "group_size", "sym") if key in raw}
    return stated | {"checkpoint_format": next(iter(_versions(raw).values()), "gptq")}


def _versions(raw: Mapping[str, object]) -> dict[str, str]:
    """The versions that a configuration names, by key; the first counts."""
    return {key: str(raw[key]).lower() for key in VERSION_KEYS if raw.get(key) is not None}


def inputs(ckpt: Checkpoint) -> str | None:
    """What GPTQModel rounds the inputs of the layers to, in words; None where it leaves them in float."""
    asked = raw_settings(ckpt).get("activation")
    mode = asked.get("mode") if isinstance(asked, dict) else asked
    return None if not mode else f"{mode!s:.40} (activation)"


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
