"""What a file of HQQ says of one layer, as plain values beside its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.codecs.hqq_bits import PARTS


@dataclass(frozen=True, slots=True)
class HQQSettings:
    """What the file says of one layer.

    Attributes:
        axis: 1: a group is so many weights that follow each other; 0: every groups-th weight.
        group_size: weights that share a scale.
    """

    rows: int
    columns: int
    bits: int
    axis: int
    group_size: int

    @property
    def groups(self) -> int:
        return self.rows * self.columns // self.group_size

    @property
    def tall(self) -> int:
        """Rows of the matrix as it is reshaped before packing."""
        return self.groups if self.axis == 1 else self.group_size

    @property
    def wide(self) -> int:
        """Its columns."""
        return self.group_size if self.axis == 1 else self.groups

    @property
    def inside(self) -> bool:
        """Whether every group lies inside of a row."""
        return self.axis == 1 and self.columns % self.group_size == 0


def settings(ckpt: Checkpoint, module: str) -> HQQSettings:
    """What the file says of one layer.

    Raises:
        FormatError: it says nothing, something impossible, or something that is not read.
    """

    def said(kind: str, default: object = None) -> object:
        return ckpt.contents.values.get(f"{module}.{kind}", default)

    def whole(kind: str, value: object, most: int = 1 << 40) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise FormatError(f"{module}: expected a whole number as {kind}, found {type(value).__name__}")
        return value

    shape = said("shape")
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise FormatError(f"{module}: expected a shape of two numbers, found {type(shape).__name__}")
    rows, columns = (whole("shape", size) for size in shape)
    bits, axis = said("nbits"), whole("axis", said("axis"), 1)
    if type(bits) not in (int, float) or bits not in PARTS:
        raise FormatError(f"{module}: expected nbits among 2, 3, 4, 8, found {_short(bits)}; it cannot be held packed")
    for kind in ("quant_scale", "quant_zero", "view_as_float", "offload_meta"):
        if said(kind, False) not in (False, None):
            raise FormatError(f"{module}: expected {kind} to be off, found it on; quantize the model without")
    if said("packing") is None:
        raise FormatError(f"{module}: expected packed codes, found a packing of {_short(said('packing'))}")
    size = whole("group_size", said("group_size"))
    if not size or not rows * columns or rows * columns % size:
        raise FormatError(f"{module}: expected a group_size that divides {rows} × {columns} weights, found {size}")
    return HQQSettings(rows, columns, int(bits), axis, size)


def _short(value: object) -> str:
    return repr(value)[:40] if isinstance(value, int | float | str | None) else type(value).__name__
