"""A float checkpoint rounded to nearest and written in a format by its own ``pack``: for formats that can be packed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.formats.base import ExportableFormat, Survey
from forq.layers.round_to_nearest import round_to_nearest


def repacked(
    floating: Path,
    out: Path,
    form: ExportableFormat,
    *,
    bits: int = 4,
    group_size: int = 16,
    sym: bool = False,
    scale_dtype: torch.dtype = torch.float16,
    left: Sequence[str] = (),
    shards: int = 1,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``out``: the matrices of the blocks quantized, the others as they are.

    Args:
        left: ends of names of layers that stay in float.
        shards: over how many files the tensors are dealt out.
        changes: of the settings in config.json.
    """
    ckpt = Checkpoint.open(floating)
    made, survey = {}, Survey(least=0, symmetric=sym, left=tuple(left))
    for name, info in ckpt.info.items():
        module, tensor = name.removesuffix(".weight"), ckpt.read(name)
        if ".layers." not in name or len(info.shape) != 2 or module.endswith(tuple(left)):
            made[name] = tensor
            continue
        size = info.shape[1] if group_size == -1 else group_size
        weight, scales = round_to_nearest(tensor, size, bits=bits, sym=sym, scale_dtype=scale_dtype)
        packed = form.pack(weight, survey) | form.pack_scales(scales)
        made |= {f"{module}.{kind}": part for kind, part in packed.items()}

    out.mkdir(parents=True)
    where = {name: f"model-{place % shards + 1:05}-of-{shards:05}.safetensors" for place, name in enumerate(made)}
    for file in sorted(set(where.values())):
        own = {name: tensor for name, tensor in made.items() if where[name] == file}
        plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in own.items()}
        write_file(out / (file if shards > 1 else "model.safetensors"), plan, own.items())
    if shards > 1:
        (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    how = form.quantization_config(bits, group_size, survey) | dict(changes or {})
    (out / "config.json").write_text(json.dumps(ckpt.config | {"quantization_config": how}))
    return out
