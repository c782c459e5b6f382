"""How many bytes a checkpoint takes to tune, method by method, from its headers alone.

Weights, gradients, optimizer states and the largest temporary matrix are counted. Activations are not: they
depend on batch and length, and methods with back-propagation keep those of every layer, the others of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from forq.formats.checkpoint import Checkpoint
from forq.models.load import recognised

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
        parameters: weights of the network, however stored.
        quantized: those of them that are stored as codes.
        file_bytes: bytes of all tensors.
        scales: continuous scales, the coordinates of QZO.
        moves: what can move: coordinates by kind.
    """

    format: str
    model_type: str
    bits: int | None
    group_size: int | None
    layers: int
    parameters: int
    quantized: int
    file_bytes: int
    scales: int
    moves: dict[str, int]
    estimates: tuple[Estimate, ...]


def summary(ckpt: Checkpoint) -> Summary:
    """Count a checkpoint's tensors; nothing is loaded.

    Raises:
        FormatError: the quantized layers contradict their settings.
    """
    form = recognised(ckpt)
    specs = {} if form is None else form.layers(ckpt)
    packed = {name for spec in specs.values() for name in spec.tensors}
    floats = {name: math.prod(info.shape) for name, info in ckpt.info.items() if name not in packed}
    biases = {spec.bias for spec in specs.values() if spec.bias is not None}
    quantized = sum(spec.in_features * spec.out_features for spec in specs.values())
    scales = sum(math.prod(ckpt.info[spec.scales].shape) for spec in specs.values())
    parameters = quantized + sum(floats.values()) + sum(math.prod(ckpt.info[name].shape) for name in biases)
    file_bytes = sum(info.nbytes for info in ckpt.info.values())
    dense = max(
        [spec.in_features * spec.out_features for spec in specs.values()]
        + [size for name, size in floats.items() if len(ckpt.info[name].shape) == 2]
    )
    matrices = [(spec.in_features, spec.out_features) for spec in specs.values()]
    matrices = matrices or [tuple(info.shape) for info in ckpt.info.values() if len(info.shape) == 2]  # type: ignore[misc]
    lora = sum(LORA_RANK * (rows + columns) for rows, columns in matrices)
    moves = {"scales": scales} if specs else {}
    moves["norms"] = sum(size for name, size in floats.items() if len(ckpt.info[name].shape) == 1)
    moves["dense"] = sum(size for name, size in floats.items() if len(ckpt.info[name].shape) > 1)
    return Summary(
        format=form.__name__.rpartition(".")[2] if form else "float",
        model_type=str(ckpt.config.get("model_type", "unknown")),
        bits=max((spec.bits for spec in specs.values()), default=None),
        group_size=max((spec.group_size for spec in specs.values()), default=None),
        layers=len(specs),
        parameters=parameters,
        quantized=quantized,
        file_bytes=file_bytes,
        scales=scales,
        moves={kind: count for kind, count in moves.items() if count},
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
                file_bytes + 8 * scales + 4 * dense,
                "this file, two fp32 copies of the scales, one dense layer in fp32",
            ),
        ),
    )
