"""Memory that each method needs to tune a checkpoint, from its headers alone.

The estimate counts weights, gradients, optimizer states and the largest temporary matrix. It leaves
out activations, which depend on batch size and length: backpropagation keeps those of every layer,
forward-only methods those of a single layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from forq.checkpoints import Checkpoint
from forq.coordinates.leaf import GROUPS
from forq.inspection.counts import Counts, count
from forq.inspection.pace import TOKENS
from forq.inspection.peak import peak_bytes
from forq.layers.kernels.reference import BUFFER_BYTES
from forq.layers.layer import LayerSpec
from forq.layers.weight import zeros_dtype
from forq.models.layout import layout as layout_of
from forq.models.unlike import embedded, unlike

LORA_RANK = 16


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The least number of bytes that a method needs, and its parts."""

    method: str
    memory_bytes: int
    made_of: str


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of a checkpoint.

    Attributes:
        format: name of the format; ``float`` if nothing is quantized.
        bits: bits of the widest codes.
        widths: bits of all codes, in ascending order, each width once.
        group_size: number of inputs that share a scale, the largest of all layers; −1 is a whole
            row in every layer.
        parameters: number of weights of the network, in any storage.
        quantized: number of weights stored as codes.
        file_bytes: bytes of all tensors.
        scales: number of continuous scales, the coordinates of QZO.
        moves: number of coordinates that can move, by kind; see
            :func:`forq.models.leaves.trainable`.
        exported: how a saved checkpoint is stored and what saving loses; "" if nothing is
            quantized.
        unlike: sentences on what the format's owner computes and forq does not, and on weights that
            a save leaves untuned.
        peak_bytes: predicted peak memory of a run that moves the scales, imports and activations
            included; see :func:`forq.inspection.peak.peak_bytes`.
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
    estimates: tuple[MemoryEstimate, ...]
    peak_bytes: int | None


def summary(ckpt: Checkpoint, tokens: int = TOKENS) -> Summary:
    """Summarise a checkpoint from its headers; no tensor is loaded.

    Args:
        tokens: of a batch, for the predicted peak.

    Raises:
        FormatError: forq cannot load the checkpoint; see :func:`forq.models.layout.layout`.
    """
    layout = layout_of(ckpt)
    form, moving = layout.form, layout.specs
    specs = moving if form is None else moving | form.fixed(ckpt)
    counts = count(ckpt, layout, specs)
    bits = sorted({spec.bits for spec in specs.values()})
    text = layout.kind == "causal" and ckpt.graph is None
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
        unlike=unlike(form, ckpt) + embedded(ckpt),
        estimates=_estimates(ckpt, specs, counts),
        peak_bytes=peak_bytes(ckpt, specs, _held_bytes(ckpt, specs, counts), tokens) if text else None,
    )


def _estimates(ckpt: Checkpoint, specs: Mapping[str, LayerSpec], counts: Counts) -> tuple[MemoryEstimate, ...]:
    """The memory of each method."""
    known = (
        MemoryEstimate("AdamW", 16 * counts.parameters, "16-bit weights and gradients, fp32 master and two moments"),
        MemoryEstimate("SGD", 4 * counts.parameters, "16-bit weights and gradients"),
        MemoryEstimate("MeZO", 2 * counts.parameters, "16-bit weights"),
    )
    held = _held_bytes(ckpt, specs, counts)
    if not specs:
        return (*known, MemoryEstimate("forq", held, "all tensors in fp32 (as a CPU holds them)"))
    shapes = [(spec.in_features, spec.out_features) for spec in specs.values()]
    dense = max(rows * columns for rows, columns in shapes)
    lora = sum(LORA_RANK * (rows + columns) for rows, columns in shapes)
    file_bytes = sum(info.nbytes for info in ckpt.info.values())
    return (
        *known,
        MemoryEstimate(
            "QLoRA",
            file_bytes + 16 * lora + 2 * dense,
            f"this file, rank-{LORA_RANK} adapters on every quantized layer with AdamW, one dense layer",
        ),
        MemoryEstimate(
            "forq",
            held + min(4 * dense, BUFFER_BYTES),
            "packed codes, two fp32 copies of the scales, all other tensors in fp32 (as a CPU holds them), "
            "one dense layer in fp32, 128 MiB at most",
        ),
    )


def _held_bytes(ckpt: Checkpoint, specs: Mapping[str, LayerSpec], counts: Counts) -> int:
    """Bytes of a loaded model, and of a second copy of its scales."""
    others = counts.floats + counts.moves["offsets"] + counts.moves["codebooks"]
    return _code_bytes(ckpt, specs) + 8 * counts.moves["scales"] + 4 * others


def _code_bytes(ckpt: Checkpoint, specs: Mapping[str, LayerSpec]) -> int:
    """Bytes of loaded codes and integer zero points; continuous zero points are counted as floats."""
    total = sum(spec.in_features * spec.out_features * spec.bits // 8 for spec in specs.values())
    for spec in specs.values():
        if all(live.group != "offsets" for live in spec.live):
            total += math.prod(ckpt.info[spec.live[0].name].shape) * zeros_dtype(spec.bits).itemsize
    return total
