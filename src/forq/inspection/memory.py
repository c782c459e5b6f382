"""How many bytes a checkpoint takes to tune, method by method, from its headers alone.

Weights, gradients, optimizer states and the largest temporary matrix are counted. Activations are not: they
depend on batch and length, and methods with back-propagation keep those of every layer, the others of one.
"""

from __future__ import annotations

import math
import resource
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from forq.checkpoints import Checkpoint
from forq.coordinates.leaf import GROUPS
from forq.layers.layer import LayerSpec
from forq.layers.weight import zeros_dtype
from forq.models.leaves import group_of
from forq.models.load import layout, unlike

LORA_RANK = 16


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes one method needs at least, and how they are made up."""

    method: str
    memory_bytes: int
    made_of: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a checkpoint holds.

    Attributes:
        format: name of the format, ``float`` where nothing is quantized.
        bits: of its widest codes.
        widths: bits of codes, every width there is, rising.
        group_size: inputs that share a scale, of the layer with most; −1: a whole row in every layer.
        parameters: weights of the network, however stored.
        quantized: those of them that are stored as codes.
        file_bytes: bytes of all tensors.
        scales: continuous scales, the coordinates of QZO.
        moves: what can move: coordinates by kind, as :func:`forq.models.leaves.trainable` finds them.
        exported: what a saved checkpoint looks like and what is lost on the way; "" where nothing is quantized.
        unlike: what the format's owner computes and forq does not, and what weights beside it a save leaves untuned.
    """

    format: str
    model_type: str
    bits: int | None
    widths: tuple[int, ...]
    group_size: int | None
    layers: int
    parameters: int
    quantized: int
    file_bytes: int
    scales: int
    moves: dict[str, int]
    exported: str
    unlike: tuple[str, ...]
    estimates: tuple[Estimate, ...]


def summary(ckpt: Checkpoint) -> Summary:
    """Count a checkpoint's tensors; nothing is loaded.

    Raises:
        FormatError: forq cannot load it: see :func:`forq.models.load.layout`.
    """
    found = layout(ckpt)
    form, moving = found.form, found.specs
    specs = moving if form is None else moving | form.fixed(ckpt)
    sizes = {name: math.prod(info.shape) for name, info in ckpt.info.items()}
    floats: dict[str, str] = {}
    still = {name for name, _ in found.model.named_buffers()}  # tables of positions, which a file may hold
    for place, stored in found.names.file_of.items():
        group = "" if place in still else _group(found.model, place)
        # A head tied to the embedding is the embedding's tensor, whichever comes first.
        floats[stored] = group if group == "embeddings" else floats.get(stored, group)
    moves: Counter[str] = Counter()
    for spec in moving.values():
        for live in spec.live:
            moves[live.group] += sizes[live.name]
        if form is not None and (filed := form.filed_codes(ckpt, spec)) is not None:
            moves["codes"] += math.prod(filed.shape)
        moves["zeros"] += sizes[spec.live[0].name] if spec.zeros is not None else 0
    for stored, group in floats.items():
        moves[group] += sizes[stored]
    quantized = sum(spec.in_features * spec.out_features for spec in specs.values())
    held_as_floats = sum(sizes[stored] for stored in floats)
    if "graph" in ckpt.contents.values:  # its floats fill no place of a model, and do not move
        inside = {name for spec in specs.values() for name in spec.tensors}
        still = {name for name, info in ckpt.info.items() if info.dtype.is_floating_point and name not in inside}
        held_as_floats = sum(sizes[name] for name in still)
        parameters = quantized + sum(sizes[name] for name in _graph_weights(ckpt, specs, still))
    else:
        parameters = quantized + held_as_floats - sum(sizes[stored] for stored, group in floats.items() if not group)
    file_bytes = sum(info.nbytes for info in ckpt.info.values())
    matrices = [(spec.in_features, spec.out_features) for spec in specs.values()]
    matrices = matrices or [info.shape for info in ckpt.info.values() if len(info.shape) == 2]
    dense = max(rows * columns for rows, columns in matrices)
    lora = sum(LORA_RANK * (rows + columns) for rows, columns in matrices)
    # As loaded: packed codes, and beside every scale a zero point; a continuous one is a tensor of its own.
    codes = sum(spec.in_features * spec.out_features * spec.bits // 8 for spec in specs.values())
    for spec in specs.values():
        if all(live.group != "offsets" for live in spec.live):
            codes += sizes[spec.live[0].name] * zeros_dtype(spec.bits).itemsize
    others = held_as_floats + moves["offsets"] + moves["codebooks"]
    rows = all(spec.group_size == spec.in_features for spec in specs.values())
    return Summary(
        format=form.name if form else "float",
        model_type=str(ckpt.config.get("model_type") or ckpt.config.get("_class_name") or "unknown"),
        bits=max((spec.bits for spec in specs.values()), default=None),
        widths=tuple(sorted({spec.bits for spec in specs.values()})),
        group_size=-1 if specs and rows else max((spec.group_size for spec in specs.values()), default=None),
        layers=len(specs),
        parameters=parameters,
        quantized=quantized,
        file_bytes=file_bytes,
        scales=moves["scales"],
        moves={kind: moves[kind] for kind in GROUPS if moves[kind]},
        exported=form.exported(ckpt) if form else "",
        unlike=unlike(form, ckpt),
        estimates=(
            Estimate("AdamW", 16 * parameters, "16-bit weights and gradients, fp32 master and two moments"),
            Estimate("SGD", 4 * parameters, "16-bit weights and gradients"),
            Estimate("MeZO", 2 * parameters, "16-bit weights"),
            Estimate(
                "QLoRA",
                file_bytes + 16 * lora + 2 * dense,
                f"this file, rank-{LORA_RANK} adapters on every quantized layer with AdamW, one dense layer",
            ),
            Estimate(
                "forq",
                codes + 8 * moves["scales"] + 4 * others + 4 * dense,
                "packed codes, two fp32 copies of the scales, all other tensors in fp32 (as a CPU holds them), "
                "one dense layer in fp32",
            ),
        ),
    )


def _graph_weights(ckpt: Checkpoint, specs: Mapping[str, LayerSpec], floats: set[str]) -> set[str]:
    """Those of a graph's floats that are weights of the network, each once.

    Tables of positions are none, where an operator for them reads them; an embedding is the head's codes again, where
    the configuration ties the two. Tables that a graph looks up by operators for anything are not told from weights.
    """
    nodes = ckpt.contents.values["graph"].nodes
    turned = {name for node in nodes if node.op in ("RotaryEmbedding", "GroupQueryAttention") for name in node.inputs}
    heads = {(spec.out_features, spec.in_features) for spec in specs.values()}
    looked_up = {node.inputs[0] for node in nodes if node.op == "Gather" and node.inputs}
    tied = {name for name in looked_up & floats if ckpt.info[name].shape in heads}
    return floats - turned - (tied if ckpt.config.get("tie_word_embeddings") is True else set())


def _group(model: nn.Module, place: str) -> str:
    where, _, own = place.rpartition(".")
    return group_of(model.get_submodule(where), own)


def peak_bytes() -> int:
    """Most memory this process has held at one time.

    Read from the kernel's own high-water mark where there is one: ``ru_maxrss`` of a child begins at what its
    parent held when it forked.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        # Kilobytes on Linux, bytes on macOS.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
