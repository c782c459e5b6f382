"""What a compressed-tensors configuration says of its weights; what forq does not read is refused by its name.

    config_groups: {"group_0": {"targets": [...], "format": "pack-quantized",
                                "weights": {"num_bits": 4, "type": "int", "symmetric": true,
                                            "strategy": "group", "group_size": 128, "dynamic": false},
                                "input_activations": null | {...}, "output_activations": null}, ...}

Which group a layer belongs to is seen from its tensors, so that no pattern of ``targets`` or ``ignore`` is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forq.checkpoints import Checkpoint
from forq.errors import FormatError

PACKED, WHOLE = "pack-quantized", "int-quantized"
BITS = {PACKED: (2, 4, 8), WHOLE: (8,)}
_REFUSED = {
    "float-quantized": "floats of 8 bits (fp8)",
    "nvfp4-pack-quantized": "floats of 4 bits (NVFP4)",
    "mxfp4-pack-quantized": "floats of 4 bits (MXFP4)",
    "mxfp6-pack-quantized": "floats of 6 bits (MXFP6)",
    "mxfp8-quantized": "floats of 8 bits (MXFP8)",
    "sparse-bitmask": "sparse weights",
    "sparse-24-bitmask": "sparse weights",
    "marlin-24": "sparse weights, repacked for one kernel",
    "dense": "weights that are not compressed yet",
    "fakequant": "weights that are not compressed yet",
}
_TENSOR, _ROW, _GROUP = "tensor", "channel", "group"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one config group keeps its weights.

    Attributes:
        layout: ``pack-quantized`` (words of codes) or ``int-quantized`` (a code a byte).
        group_size: inputs that share a scale; −1 is a whole row, None the whole matrix.
        sym: the middle code is zero, and no zero points are stored.
        inputs: what the owner does to the layer's inputs, in words; None where it leaves them in float.
    """

    layout: str
    bits: int
    group_size: int | None
    sym: bool
    inputs: str | None

    def groups(self, columns: int) -> int:
        """Scales in a row."""
        return 1 if self.group_size is None or self.group_size == -1 else -(-columns // self.group_size)


def schemes(ckpt: Checkpoint) -> tuple[Scheme, ...]:
    """The schemes of all config groups that quantize weights.

    Raises:
        FormatError: a setting is missing, impossible, or not read here.
    """
    where = f"{ckpt.path}: quantization_config"
    raw = ckpt.config.get("quantization_config")
    groups = raw.get("config_groups") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(groups, dict) or not groups:
        raise FormatError(f"{where}: expected config_groups, found {groups!r:.80}")
    sparse = raw.get("sparsity_config") or {}
    if not isinstance(sparse, dict) or sparse.get("format") not in (None, "dense"):
        raise FormatError(f"{where}: expected no sparsity_config, found {sparse!r:.80}; sparse weights are not read")
    for key in ("transform_config", "kv_cache_scheme"):
        if raw.get(key):
            raise FormatError(
                f"{where}: expected no {key}, found one; its owner computes what this does not: take a checkpoint "
                "whose weights alone are quantized"
            )
    found = [_scheme(f"{where}.config_groups.{name}", group, raw.get("format")) for name, group in groups.items()]
    return tuple(dict.fromkeys(scheme for scheme in found if scheme is not None))


def inputs_alone(ckpt: Checkpoint) -> tuple[str, ...]:
    """What config groups without weights round, in words: attention, say, or the inputs of layers in float."""
    groups = ckpt.config["quantization_config"]["config_groups"].values()
    alone = (group for group in groups if group.get("weights") is None)
    told = [(group.get("targets"), _inputs(group.get("input_activations"))) for group in alone]
    return tuple(f"{', '.join(map(str, targets or ()))} to {inputs}" for targets, inputs in told if inputs is not None)


def _scheme(where: str, group: object, overall: object) -> Scheme | None:
    if not isinstance(group, dict):
        raise FormatError(f"{where}: expected weights and targets, found {group!r:.80}; write a preset out")
    if group.get("output_activations") is not None:
        raise FormatError(f"{where}: expected no output_activations, found some; outputs are not rounded here")
    how = group.get("weights")
    if how is None:
        return None
    if not isinstance(how, dict):
        raise FormatError(f"{where}: expected settings of weights, found {how!r:.80}")
    layout = group.get("format") or overall
    bits, kind, sym = how.get("num_bits", 8), how.get("type", "int"), how.get("symmetric", True)
    if isinstance(layout, str) and layout in _REFUSED:
        raise FormatError(
            f"{where}: expected {PACKED} or {WHOLE}, found {layout!r}: {_REFUSED[layout]} are not read; take a "
            "checkpoint with integer weights"
        )
    if kind != "int":
        raise FormatError(f"{where}: expected weights of type 'int', found {kind!r} of {bits!r} bits; take another")
    layout = WHOLE if layout == "naive-quantized" else layout
    if not isinstance(layout, str) or layout not in BITS:
        raise FormatError(f"{where}: expected format {PACKED} or {WHOLE}, found {layout!r:.80}")
    if type(bits) is not int or bits not in BITS[layout]:
        raise FormatError(f"{where}: expected {' or '.join(map(str, BITS[layout]))} bits for {layout}, found {bits!r}")
    if type(sym) is not bool or how.get("dynamic"):
        raise FormatError(f"{where}: expected static weights, symmetric or not, found {sym!r}, {how.get('dynamic')!r}")
    return Scheme(layout, bits, _group_size(where, how), sym, _inputs(group.get("input_activations")))


def _group_size(where: str, how: Mapping[str, object]) -> int | None:
    size, strategy = how.get("group_size"), how.get("strategy")
    if size is not None and (type(size) is not int or (size < 1 and size != -1)):
        raise FormatError(f"{where}: expected a positive group_size, -1 or none, found {size!r}")
    if strategy is None:
        strategy = _TENSOR if size is None else _ROW if size == -1 else _GROUP
    if strategy not in (_TENSOR, _ROW, _GROUP) or (strategy == _GROUP and (size is None or size == -1)):
        raise FormatError(
            f"{where}: expected the strategy {_TENSOR}, {_ROW}, or {_GROUP} with its group_size, found {strategy!r}, "
            f"{size!r}"
        )
    return {_TENSOR: None, _ROW: -1}.get(strategy, size)


def _inputs(how: object) -> str | None:
    if not isinstance(how, dict):
        return None
    when = "for every token" if how.get("dynamic") else "by scales of the file"
    return f"{how.get('num_bits', 8)} bits ({how.get('type', 'int')}), {when}"
