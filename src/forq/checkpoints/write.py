"""Write a safetensors file from tensors that arrive one at a time, in any order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints.tensor import DTYPES, byte_view
from forq.errors import FormatError

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_ALIGNMENT = 8


def write_file(
    path: Path,
    plan: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write a safetensors file.

    Args:
        plan: dtype and shape of every tensor, by name. Offsets in the file follow from it.
        tensors: names and tensors, in any order.
        metadata: texts for the header, by name.

    Returns:
        Size of all tensors in bytes.

    Raises:
        FormatError: a tensor differs from the plan or is not in it, or a planned tensor is missing.
    """
    # Wide dtypes come first, so that every tensor is aligned: readers view the bytes in place.
    names = sorted(plan, key=lambda name: (-plan[name][0].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offsets, end = {}, 0
    for name in names:
        dtype, shape = plan[name]
        nbytes = dtype.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [end, end + nbytes]}
        offsets[name] = end
        end += nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)

    missing = set(names)
    with path.open("wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        stream.truncate(8 + len(raw) + end)
        for name, tensor in tensors:
            if name not in missing or (tensor.dtype, tuple(tensor.shape)) != plan[name]:
                raise FormatError(f"{name}: expected {plan.get(name)}, found {tensor.dtype} {tuple(tensor.shape)}")
            stream.seek(8 + len(raw) + offsets[name])
            stream.write(byte_view(tensor))
            missing.remove(name)
    if missing:
        raise FormatError(f"{path}: expected the tensors {', '.join(sorted(missing)[:4])}, found none of them")
    return end
