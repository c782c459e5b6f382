"""How many bytes it takes to tune a checkpoint, method by method, from its headers alone.

Weights, gradients, optimizer states and the largest temporary matrix are counted. Activations are not: they
depend on batch and length, and methods with back-propagation keep those of every layer, the others of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from forq.checkpoints import Checkpoint
from forq.coordinates.leaf import GROUPS
from forq.inspection.counts import Counts, count
from forq.layers.layer import LayerSpec
from forq.layers.weight import zeros_dtype
from forq.models.layout import layout
from forq.models.unlike import unlike

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
        FormatError: forq cannot load it: see :func:`forq.models.layout.layout`.
    """
    found = layout(ckpt)
    form, moving = found.form, found.specs
    specs = moving if form is None else moving | form.fixed(ckpt)
    counts = count(ckpt, found, specs)
    bits = sorted({spec.bits for spec in specs.values()})
    rows = all(spec.group_size == spec.in_features for spec in specs.values())
    return Summary(
        format=form.name if form else "float",
        model_type=str(ckpt.config.get("model_type") or ckpt.config.get("_class_name") or "unknown"),
        bits=max(bits, default=None),
        widths=tuple(bits),
        group_size=-1 if specs and rows else max((spec.group_size for spec in specs.values()), default=None),
        layers=len(specs),
        parameters=counts.parameters,
        quantized=counts.quantized,
        file_bytes=sum(info.nbytes for info in ckpt.info.values()),
        scales=counts.moves["scales"],
        moves={kind: counts.moves[kind] for kind in GROUPS if counts.moves[kind]},
        exported=form.exported(ckpt) if form else "",
        unlike=unlike(form, ckpt),
        estimates=_estimates(ckpt, specs, counts),
    )


def _estimates(ckpt: Checkpoint, specs: Mapping[str, LayerSpec], counts: Counts) -> tuple[Estimate, ...]:
    """Bytes of each method."""
    file_bytes = sum(info.nbytes for info in ckpt.info.values())
    shapes = [(spec.in_features, spec.out_features) for spec in specs.values()]
    shapes = shapes or [(info.shape[0], info.shape[1]) for info in ckpt.info.values() if len(info.shape) == 2]
    dense = max(rows * columns for rows, columns in shapes)
    lora = sum(LORA_RANK * (rows + columns) for rows, columns in shapes)
    scales = counts.moves["scales"]
    others = counts.floats + counts.moves["offsets"] + counts.moves["codebooks"]
    return (
        Estimate("AdamW", 16 * counts.parameters, "16-bit weights and gradients, fp32 master and two moments"),
        Estimate("SGD", 4 * counts.parameters, "16-bit weights and gradients"),
        Estimate("MeZO", 2 * counts.parameters, "16-bit weights"),
        Estimate(
            "QLoRA",
            file_bytes + 16 * lora + 2 * dense,
            f"this file, rank-{LORA_RANK} adapters on every quantized layer with AdamW, one dense layer",
        ),
        Estimate(
            "forq",
            _code_bytes(ckpt, specs) + 8 * scales + 4 * others + 4 * dense,
            "packed codes, two fp32 copies of the scales, all other tensors in fp32 (as a CPU holds them), "
            "one dense layer in fp32",
        ),
    )


def _code_bytes(ckpt: Checkpoint, specs: Mapping[str, LayerSpec]) -> int:
    """Bytes of codes and zero points as loaded; continuous zero points are tensors of their own."""
    total = sum(spec.in_features * spec.out_features * spec.bits // 8 for spec in specs.values())
    for spec in specs.values():
        if all(live.group != "offsets" for live in spec.live):
            total += math.prod(ckpt.info[spec.live[0].name].shape) * zeros_dtype(spec.bits).itemsize
    return total
