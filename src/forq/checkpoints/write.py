"""Write a safetensors file whose tensors arrive one at a time: places first, bytes in any order."""

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
    """Write the tensors of ``plan``, dtypes and shapes by name, as ``tensors`` gives them; and text, by name.

    Returns:
        Bytes of all tensors together.

    Raises:
        FormatError: a tensor is not in the plan or not as planned, or one never came.
    """
    # Wide dtypes first, so that every tensor is aligned: readers view bytes in place.
    names = sorted(plan, key=lambda name: (-plan[name][0].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    place, end = {}, 0
    for name in names:
        dtype, shape = plan[name]
        nbytes = dtype.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [end, end + nbytes]}
        place[name] = end
        end += nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)

    left = set(names)
    with path.open("wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        stream.truncate(8 + len(raw) + end)
        for name, tensor in tensors:
            if name not in left or (tensor.dtype, tuple(tensor.shape)) != plan[name]:
                raise FormatError(f"{name}: expected {plan.get(name)}, found {tensor.dtype} {tuple(tensor.shape)}")
            stream.seek(8 + len(raw) + place[name])
            stream.write(byte_view(tensor))
            left.remove(name)
    if left:
        raise FormatError(f"{path}: expected the tensors {', '.join(sorted(left)[:4])}, which never came")
    return end
