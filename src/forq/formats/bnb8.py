"""bitsandbytes at 8 bits (LLM.int8): signed codes, the largest magnitude of every row beside them.

    X.weight         int8 (out, in)      w = code · SCB / 127
    X.SCB            float32 (out,)
    X.weight_format  uint8, one number: 0, rows as they are; others are tilings of older versions for a GPU

The library multiplies in integers, with activations rounded to 8 bits but for columns that exceed its threshold; here
the same matrix multiplies float32, unless a run asks for ``--activations int8``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.base import About, Format, inputs_here
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype

_MIDDLE, _TOP = 128, 127.0
_BIASES = (torch.float16, torch.bfloat16, torch.float32)


class BitsAndBytes8(Format):
    """Rows of signed codes, as bitsandbytes and transformers write them."""

    about = About(
        title="bitsandbytes int8",
        bits="8",
        moves=("scales", "codes"),
        exported="the same file; nothing is lost: its scales are float32",
        library=(
            "bitsandbytes 0.50.2 (compared with its matrices in float32; its own loss, of rounded activations, to 3 %)"
        ),
        layout=(
            "weight         int8 (out, in), w = code · SCB / 127",
            "SCB            float32 (out,)",
            "weight_format  uint8, 0",
        ),
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether a matrix of int8 has a tensor SCB beside it."""
        return any(name.endswith(".SCB") and _is_int8(ckpt, name) for name in ckpt.info)

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers by module name, checked from the headers alone.

        Raises:
            FormatError: tensors are missing or contradict each other.
        """
        modules = sorted(name.removesuffix(".SCB") for name in ckpt.info if name.endswith(".SCB"))
        return {module: _spec(ckpt, module) for module in modules}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Codes, scales and bias of a layer.

        Raises:
            FormatError: the codes are tiled for a GPU.
        """
        form = f"{spec.name}.weight_format"
        if form in ckpt.info and int(ckpt.read(form)) != 0:
            raise FormatError(
                f"{form}: expected 0 (rows), found {int(ckpt.read(form))}, a tiling of older versions; load the "
                "checkpoint with bitsandbytes and save it again"
            )
        codes = _turned(ckpt.read(f"{spec.name}.weight").view(torch.uint8))
        zeros = torch.full((1, 1), _MIDDLE, dtype=zeros_dtype(8)).expand(1, spec.out_features)
        bias = None if spec.bias is None else ckpt.read(spec.bias)
        return Parts(QuantWeight(codes, zeros, 8, spec.in_features), (ckpt.read(spec.live[0].name),), bias, _arranged)

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
        """How the codes of a layer are packed."""
        return FiledCodes(f"{spec.name}.weight", torch.int8, spec.shape, spec.bits, _signed)

    def unlike(self, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
        """That bitsandbytes rounds inputs."""
        return (
            "bitsandbytes multiplies int8 weights with inputs rounded to 8 bits; "
            f"{inputs_here(activations, 'bitsandbytes')}",
        )


format = BitsAndBytes8()


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
