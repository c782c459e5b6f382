"""A layer of a compressed-tensors checkpoint, from its headers and the two numbers of its ``weight_shape``."""

from __future__ import annotations

import torch

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.codecs.compressed_schemes import PACKED, WHOLE, Scheme
from forq.layers.layer import SHARED, LayerSpec, Live

CODES = {PACKED: "weight_packed", WHOLE: "weight"}
"""The tensor of a layer's codes, by layout."""
_SCALE_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_WORD_BITS = 32
_LARGEST = 1 << 31


def layer_spec(ckpt: Checkpoint, module: str, layout: str, known: tuple[Scheme, ...]) -> LayerSpec:
    """One layer, by the one scheme its tensors fit; the tensor of its codes comes first.

    Raises:
        FormatError: they fit none, or two that read them in different ways.
    """
    rows, columns = _shape(ckpt, module, layout)
    kinds = [CODES[layout], "weight_scale", *(["weight_shape"] if layout == PACKED else [])]
    kinds += [kind for kind in ("weight_zero_point", "weight_g_idx") if f"{module}.{kind}" in ckpt.info]
    readings = {
        (scheme.bits, columns if scheme.group_size in (None, -1) else scheme.group_size): scheme
        for scheme in known
        if scheme.layout == layout and _fits(ckpt, module, scheme, rows, columns)
    }
    if len(readings) != 1:
        held = [(kind, ckpt.info[f"{module}.{kind}"]) for kind in kinds if f"{module}.{kind}" in ckpt.info]
        raise FormatError(
            f"{module}: expected tensors that fit one config group ({'; '.join(map(_said, known)) or 'none'}), "
            f"found {', '.join(f'{kind} {info.dtype} {info.shape}' for kind, info in held)} for {rows} outputs and "
            f"{columns} inputs, which fit {len(readings)}; the configuration contradicts the tensors: use the one this "
            "file was made with"
        )
    ((bits, size), scheme) = readings.popitem()
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        _expect(ckpt, module, "bias", (rows,), _SCALE_DTYPES)
        kinds.append("bias")
    kinds += [kind for kind in ("input_scale", "input_zero_point") if f"{module}.{kind}" in ckpt.info]
    scales = ckpt.info[f"{module}.weight_scale"]
    matrix = len(scales.shape) == 2
    live = Live(f"{module}.weight_scale", scales.dtype, out_axis=0 if matrix else SHARED)
    # A zero point that serves the whole matrix has no place for every output: it stands still.
    zeros = None if scheme.sym or not matrix else f"{module}.weight_zero_point"
    tensors = tuple(f"{module}.{kind}" for kind in kinds)
    return LayerSpec(module, columns, rows, bits, min(size or columns, columns), (live,), bias, tensors, zeros)


def _shape(ckpt: Checkpoint, module: str, layout: str) -> tuple[int, int]:
    """Outputs and inputs of a layer."""
    stored = ckpt.info[f"{module}.{CODES[layout]}"]
    if len(stored.shape) != 2 or 0 in stored.shape:
        raise FormatError(f"{module}.{CODES[layout]}: expected a matrix, found shape {stored.shape}")
    if layout == WHOLE:
        return stored.shape[0], stored.shape[1]
    if stored.dtype != torch.int32:
        raise FormatError(
            f"{module}.weight_packed: expected torch.int32, found {stored.dtype}; it is of another format"
        )
    _expect(ckpt, module, "weight_shape", (2,), (torch.int64, torch.int32))
    rows, columns = (int(size) for size in ckpt.read(f"{module}.weight_shape"))
    if rows != stored.shape[0] or not 0 < columns < _LARGEST:
        raise FormatError(
            f"{module}.weight_shape: expected {stored.shape[0]} outputs and some inputs, found {rows} and {columns}"
        )
    return rows, columns


def _fits(ckpt: Checkpoint, module: str, scheme: Scheme, rows: int, columns: int) -> bool:
    """Whether a layer's tensors have the shapes a scheme gives them."""
    words = -(-columns * scheme.bits // _WORD_BITS)
    if scheme.layout == PACKED and ckpt.info[f"{module}.weight_packed"].shape[1] != words:
        return False
    if columns * scheme.bits % 8:
        return False
    scales = (1,) if scheme.group_size is None else (rows, scheme.groups(columns))
    held = {kind: ckpt.info.get(f"{module}.{kind}") for kind in ("weight_scale", "weight_zero_point", "weight_g_idx")}
    scale, zero, order = held["weight_scale"], held["weight_zero_point"], held["weight_g_idx"]
    if scale is None or scale.shape != scales or scale.dtype not in _SCALE_DTYPES:
        return False
    if order is not None and (order.shape != (columns,) or order.dtype != torch.int32):
        return False
    if zero is None:
        return scheme.sym
    packed = (-(-rows * scheme.bits // _WORD_BITS), scales[-1])
    return (zero.dtype, zero.shape) in ((torch.int8, scales), (torch.int32, packed))


def _expect(ckpt: Checkpoint, module: str, kind: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    info = ckpt.info.get(f"{module}.{kind}")
    if info is None or info.shape != shape or info.dtype not in dtypes:
        found = "none" if info is None else f"{info.dtype} of shape {info.shape}"
        raise FormatError(
            f"{module}.{kind}: expected {' or '.join(map(str, dtypes))} of shape {shape}, found {found}; the file is "
            "damaged"
        )


def _said(scheme: Scheme) -> str:
    """A scheme in the words of its configuration."""
    size = "one scale" if scheme.group_size is None else f"group_size {scheme.group_size}"
    return f"{scheme.layout} of {scheme.bits} bits, {size}, {'' if scheme.sym else 'a'}symmetric"
