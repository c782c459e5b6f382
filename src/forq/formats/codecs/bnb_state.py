"""What bitsandbytes says of a 4-bit matrix beside its codes: a JSON text kept as bytes, and magnitudes quantized again.

With double quantization absmax is uint8, an index into 256 levels, times a magnitude for every 256 of them, plus an
offset:  absmax[b] = fl(fl(level[index[b]] · nested_absmax[b // 256]) + offset).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.layers.normal_float import Kind, table

_TEXT_BYTES = 4096
_SAME_LEVEL = 1e-4


@dataclass(frozen=True, slots=True)
class State:
    """The description of one matrix, checked.

    Attributes:
        name: of the tensor that holds it.
        settings: the JSON object.
    """

    name: str
    settings: dict[str, object]
    kind: Kind
    blocksize: int
    shape: tuple[int, int]
    nested: int | None
    offset: float

    @property
    def blocks(self) -> int:
        return -(-math.prod(self.shape) // self.blocksize)


def state(ckpt: Checkpoint, weight: str) -> State:
    """The description of the matrix called ``weight``.

    Raises:
        FormatError: there is none, or it is impossible.
    """
    for kind in ("nf4", "fp4"):
        name = state_name(weight, kind)
        if name in ckpt.info:
            return _checked(name, kind, _text(ckpt, name))
    raise FormatError(f"{weight}: expected a tensor quant_state.bitsandbytes__nf4 or …fp4 beside it, found none")


def state_name(weight: str, kind: str) -> str:
    """Name of the tensor with the description."""
    return f"{weight}.quant_state.bitsandbytes__{kind}"


def magnitudes(ckpt: Checkpoint, weight: str, how: State) -> Tensor:
    """float32 (blocks,): absmax, as bitsandbytes computes it where it is nested."""
    stored = ckpt.read(f"{weight}.absmax")
    if how.nested is None:
        return stored
    levels = ckpt.read(f"{weight}.nested_quant_map")
    wide = ckpt.read(f"{weight}.nested_absmax").repeat_interleave(how.nested)[: len(stored)]
    return levels[stored.int()].mul_(wide).add_(how.offset)


def unnested(how: State) -> Tensor:
    """The description without its settings of double quantization, as bytes."""
    kept = {key: value for key, value in how.settings.items() if not key.startswith("nested_")}
    return torch.frombuffer(bytearray(json.dumps(kept).encode()), dtype=torch.uint8)


def check_levels(ckpt: Checkpoint, weight: str, kind: Kind) -> None:
    """Check that the levels in the file are those built into the library's kernels, which never read them.

    Raises:
        FormatError: they are others.
    """
    found = ckpt.read(f"{weight}.quant_map")
    if not bool(((found - table(kind).filed).abs() <= _SAME_LEVEL).all()):
        raise FormatError(f"{weight}.quant_map: expected the levels of {kind}, found others: {found.tolist()}")


def _text(ckpt: Checkpoint, name: str) -> dict[str, object]:
    info = ckpt.info[name]
    if info.dtype != torch.uint8 or len(info.shape) != 1 or info.nbytes > _TEXT_BYTES:
        raise FormatError(f"{name}: expected at most {_TEXT_BYTES} bytes of JSON, found {info.dtype} {info.shape}")
    try:
        settings = json.loads(ckpt.read(name).numpy().tobytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: expected JSON, found {error}; the file is damaged") from error
    if not isinstance(settings, dict):
        raise FormatError(f"{name}: expected a JSON object, found {type(settings).__name__}; the file is damaged")
    return settings


def _checked(name: str, kind: Kind, settings: dict[str, object]) -> State:
    def whole(key: str) -> int:
        value = settings.get(key)
        if type(value) is not int or not 2 <= value < 1 << 32 or value % 2:
            raise FormatError(f"{name}: expected an even {key}, found {value!r}")
        return value

    shape = settings.get("shape")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 < n < 1 << 32 for n in shape)):
        raise FormatError(f"{name}: expected the shape of a matrix, found {shape!r:.80}")
    if shape[1] % 2:
        raise FormatError(f"{name}: expected an even number of inputs, found {shape[1]}: a byte would cross rows")
    if settings.get("quant_type") != kind:
        raise FormatError(f"{name}: expected quant_type {kind!r}, found {settings.get('quant_type')!r:.80}")
    nested = whole("nested_blocksize") if "nested_blocksize" in settings else None
    offset = settings.get("nested_offset", 0.0)
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not math.isfinite(offset):
        raise FormatError(f"{name}: expected a finite nested_offset, found {offset!r:.80}")
    return State(name, settings, kind, whole("blocksize"), (shape[0], shape[1]), nested, float(offset))


def byte_table(kind: Kind, *, ours: bool) -> Tensor:
    """uint8 (256,): from a byte of the file to a byte as forq keeps it (``ours``), or back.

    The two nibbles trade places, and codes become ranks.
    """
    turn = table(kind).rank_of if ours else table(kind).code_of
    return ((turn[None, :] << 4) | turn[:, None]).reshape(-1)
