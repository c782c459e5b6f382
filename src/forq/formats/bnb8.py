"""bitsandbytes at 8 bits (LLM.int8): signed codes, the largest magnitude of every row beside them.

    X.weight         int8 (out, in)      w = code · SCB / 127
    X.SCB            float32 (out,)
    X.weight_format  uint8, one number: 0, rows as they are; others are tilings of older versions for a GPU

The library multiplies in integers, with activations rounded to 8 bits but for columns that exceed its threshold; here
the same matrix multiplies float32, unless a run asks for ``--activations int8``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats import _tiny
from forq.formats._about import About, inputs_here
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype

ABOUT = About(
    title="bitsandbytes int8",
    bits="8",
    moves=("scales", "codes"),
    exported="the same file; nothing is lost: its scales are float32",
    library="bitsandbytes 0.50.2 (compared with its matrices in float32; its own loss, of rounded activations, to 3 %)",
    layout=(
        "weight         int8 (out, in), w = code · SCB / 127",
        "SCB            float32 (out,)",
        "weight_format  uint8, 0",
    ),
)

_MIDDLE, _TOP = 128, 127.0
_BIASES = (torch.float16, torch.bfloat16, torch.float32)


def recognise(ckpt: Checkpoint) -> bool:
    """Does a matrix of int8 have a tensor SCB beside it?"""
    return any(name.endswith(".SCB") and _is_int8(ckpt, name) for name in ckpt.info)


def layers(ckpt: Checkpoint) -> dict[str, LayerSpec]:
    """The quantized layers by module name, checked from the headers alone.

    Raises:
        FormatError: tensors are missing or contradict each other.
    """
    modules = sorted(name.removesuffix(".SCB") for name in ckpt.info if name.endswith(".SCB"))
    return {module: _spec(ckpt, module) for module in modules}


def read(ckpt: Checkpoint, spec: LayerSpec) -> Parts:
    """Codes, scales and bias of one layer; no float copy of the weights is made.

    Raises:
        FormatError: the codes are tiled for a GPU.
    """
    form = f"{spec.name}.weight_format"
    if form in ckpt.info and int(ckpt.read(form)) != 0:
        raise FormatError(
            f"{form}: expected 0 (rows), found {int(ckpt.read(form))}, a tiling of older versions; load the checkpoint "
            "with bitsandbytes and save it again"
        )
    codes = _turned(ckpt.read(f"{spec.name}.weight").view(torch.uint8))
    zeros = torch.full((1, 1), _MIDDLE, dtype=zeros_dtype(8)).expand(1, spec.out_features)
    bias = None if spec.bias is None else ckpt.read(spec.bias)
    return Parts(QuantWeight(codes, zeros, 8, spec.in_features), (ckpt.read(spec.live[0].name),), bias, _arranged)


def filed_codes(ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
    """How a layer's codes are packed."""
    return FiledCodes(f"{spec.name}.weight", torch.int8, spec.shape, spec.bits, _signed)


def unlike(ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """What bitsandbytes computes and forq does not."""
    return (
        "bitsandbytes multiplies int8 weights with inputs rounded to 8 bits; "
        f"{inputs_here(activations, 'bitsandbytes')}",
    )


def _arranged(scales: Tensor) -> Tensor:
    """(out,) → (1, out), what a code of 1 is worth."""
    return (scales / _TOP)[None]


def _turned(codes: Tensor) -> Tensor:
    """From two's complement to codes that count from −128 on, and back: the same, in place."""
    return codes.bitwise_xor_(_MIDDLE)


def _signed(codes: Tensor) -> Tensor:
    return _turned(codes.clone()).view(torch.int8)


def _is_int8(ckpt: Checkpoint, scales: str) -> bool:
    weight = ckpt.info.get(f"{scales.removesuffix('.SCB')}.weight")
    return weight is not None and weight.dtype == torch.int8


def _spec(ckpt: Checkpoint, module: str) -> LayerSpec:
    kinds = ["weight", "SCB"]

    def expect(kind: str, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
        info = ckpt.info.get(f"{module}.{kind}")
        if info is None:
            raise FormatError(f"{module}.{kind}: expected it beside SCB, found none; the file is damaged")
        if info.shape != shape or info.dtype not in dtypes:
            raise FormatError(
                f"{module}.{kind}: expected {' or '.join(map(str, dtypes))} of shape {shape}, found {info.dtype} of "
                f"shape {info.shape}; the file is damaged"
            )

    weight = ckpt.info.get(f"{module}.weight")
    if weight is None or len(weight.shape) != 2 or 0 in weight.shape:
        raise FormatError(f"{module}.weight: expected a matrix of int8, found {weight and weight.shape}")
    rows, columns = weight.shape
    expect("weight", (rows, columns), torch.int8)
    expect("SCB", (rows,), torch.float32)
    form = ckpt.info.get(f"{module}.weight_format")
    if form is not None:
        expect("weight_format", (1,) if form.shape else (), torch.uint8)
        kinds.append("weight_format")
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect("bias", (rows,), *_BIASES)
        kinds.append("bias")
    live = (Live(f"{module}.SCB", torch.float32),)
    return LayerSpec(module, columns, rows, 8, columns, live, bias, tuple(f"{module}.{kind}" for kind in kinds))


VARIANTS: Mapping[str, Mapping[str, Any]] = {"bare": {"weight_format": False}}
"""Other shapes of the format, as changes of the example's settings; ``weight_format``: whether layers say it."""


def example(folder: Path, weight_format: bool = True, **changes: Any) -> Path:
    """A tiny valid checkpoint: a Llama of one block with random codes and scales.

    Args:
        changes: of the settings, see :data:`VARIANTS`.

    Returns:
        ``folder``, which is made.
    """
    how: dict[str, Any] = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
    how |= {"llm_int8_threshold": 6.0, "llm_int8_has_fp16_weight": False, **changes}

    def quantized(module: str, rows: int, columns: int) -> dict[str, Tensor]:
        draw = _tiny.generator(module)
        made = {
            "weight": torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=draw),
            "SCB": torch.rand(rows, generator=draw) * 0.2 + 0.1,
        }
        if weight_format:
            made["weight_format"] = torch.zeros((), dtype=torch.uint8)
        return {f"{module}.{kind}": tensor for kind, tensor in made.items()}

    return _tiny.write(folder, quantized, {"quantization_config": how})
