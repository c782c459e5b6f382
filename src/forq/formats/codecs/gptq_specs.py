"""The quantized layers of a GPTQ checkpoint, from its headers and settings."""

from __future__ import annotations

import torch

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.codecs.gptq_settings import GPTQSettings, check_kept, settings
from forq.formats.codecs.gptq_words import WORD_BITS, multiple
from forq.layers.layer import LayerSpec, Live

_SCALE_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def layer_specs(ckpt: Checkpoint) -> dict[str, LayerSpec]:
    """The quantized layers by module name.

    Raises:
        FormatError: tensors are missing, or contradict each other or the settings.
    """
    how = settings(ckpt)
    modules = sorted(name.removesuffix(".qweight") for name in ckpt.info if name.endswith(".qweight"))
    check_kept(ckpt, modules)
    return {module: _spec(ckpt, module, how) for module in modules}


def _spec(ckpt: Checkpoint, module: str, how: GPTQSettings) -> LayerSpec:
    def expect(kind: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = (torch.int32,)) -> torch.dtype:
        info = ckpt.info.get(f"{module}.{kind}")
        if info is None:
            raise FormatError(f"{module}: expected a tensor {kind!r} beside qweight, found none; the file is damaged")
        if info.shape != shape or info.dtype not in dtypes:
            raise FormatError(
                f"{module}.{kind}: expected {' or '.join(map(str, dtypes))} of shape {shape} for {how.bits} "
                f"bits and group_size {how.group_size}, found {info.dtype} of shape {info.shape}; the "
                "configuration contradicts the tensors: use the quantization_config this file was made with"
            )
        return info.dtype

    packed = ckpt.info[f"{module}.qweight"].shape
    if len(packed) != 2 or 0 in packed:
        raise FormatError(f"{module}.qweight: expected a matrix, found shape {packed}")
    columns, rows = packed[0] * WORD_BITS // how.bits, packed[1]
    if columns % multiple(how.bits) or rows % multiple(how.bits):
        raise FormatError(
            f"{module}: expected a multiple of {multiple(how.bits)} inputs and outputs at {how.bits} bits, found "
            f"{columns} and {rows}"
        )
    group_size = columns if how.group_size == -1 else min(how.group_size, columns)
    groups = -(-columns // group_size)
    expect("qweight", packed)
    expect("qzeros", (groups, rows * how.bits // WORD_BITS))
    dtype = expect("scales", (groups, rows), _SCALE_DTYPES)
    kinds = ["qweight", "qzeros", "scales"]
    if f"{module}.g_idx" in ckpt.info:
        expect("g_idx", (columns,))
        kinds.append("g_idx")
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect("bias", (rows,), _SCALE_DTYPES)
        kinds.append("bias")
    tensors = tuple(f"{module}.{kind}" for kind in kinds)
    scales = Live(f"{module}.scales", dtype, out_axis=1)
    return LayerSpec(module, columns, rows, how.bits, group_size, (scales,), bias, tensors, f"{module}.qzeros")
