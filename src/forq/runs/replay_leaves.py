"""Leaves read from files for replay; no model exists, so ``write`` is a no-op."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.coordinates.leaf import QUANTIZED, Leaf, Overlay, Shared, SparseCodes
from forq.errors import FormatError
from forq.formats import Format, recognised
from forq.layers.layer import FiledCodes, LayerSpec, Live, ZeroPoints
from forq.layers.leaves import Codes
from forq.layers.weight import CodedWeight, QuantWeight

Listed = tuple[str, str, int, torch.dtype, Shared | None]
"""A leaf as a journal's header lists it: name, group, axis of the outputs, dtype, and how it shares its noise."""


class _Filed:
    """A leaf whose coordinates are the values in its file."""

    def __init__(self, listed: Listed, base: Checkpoint) -> None:
        self.name, self.group, self.out_axis, *_ = listed
        self.base = base

    @property
    def dtype(self) -> torch.dtype:
        return self.base.info[self.name].dtype

    def read(self) -> Tensor:
        return self.base.read(self.name).float()

    def write(self, x: Tensor) -> None:
        """Does nothing, since there is no model."""


class _FiledLive(_Filed):
    """A leaf for a continuous tensor of a quantized layer, read by its format."""

    def __init__(self, listed: Listed, base: Checkpoint, form: Format, spec: LayerSpec, live: Live) -> None:
        super().__init__(listed, base)
        self.form, self.spec, self.live = form, spec, live

    @property
    def dtype(self) -> torch.dtype:
        return self.live.dtype

    def read(self) -> Tensor:
        return self.form.read_live(self.base, self.spec, self.live).float()


class _FiledZeros(_Filed):
    """A leaf for the zero points in a packed tensor."""

    def __init__(self, listed: Listed, base: Checkpoint, form: Format, spec: LayerSpec, points: ZeroPoints) -> None:
        super().__init__(listed, base)
        self.form, self.spec, self.points = form, spec, points
        self.range = points.range

    def read(self) -> Tensor:
        weight = self.form.read(self.base, self.spec).weight
        assert isinstance(weight, QuantWeight)
        return weight.zeros.float()

    def packed(self, x: Tensor) -> Tensor:
        return self.points.packed(x)


class _FiledCodes(Codes):
    """A leaf for the codes in a packed tensor, in a layer's storage."""

    overlay: Overlay | None = None
    sparse: SparseCodes | None = None

    def __init__(self, listed: Listed, base: Checkpoint, form: Format, spec: LayerSpec, codes: FiledCodes) -> None:
        self.file = codes
        self._weight = cast(CodedWeight, form.read(base, spec).weight)

    @property
    def weight(self) -> CodedWeight:
        return self._weight


class _FiledLazy(_Filed):
    """A leaf that is its own master, in the dtype of the model."""

    def __init__(self, listed: Listed, base: Checkpoint) -> None:
        super().__init__(listed, base)
        self.overlay: Overlay | None = None
        self.storage = base.read(self.name).to(listed[3])


def leaves(listed: Iterable[Listed], base: Checkpoint) -> Iterator[Leaf]:
    """The leaves of a run, in the order its header lists them; adapters are not among them.

    Raises:
        FormatError: the checkpoint lacks a listed tensor.
    """
    listed = tuple(listed)
    ours = _of_layers(base) if any(group in QUANTIZED for _, group, *_ in listed) else {}
    for leaf in listed:
        name, group, _, dtype, _ = leaf
        if group in QUANTIZED and name in ours:
            yield ours[name](leaf)
        elif name not in base.info:
            raise FormatError(f"{base.path}: expected a tensor {name!r}, which the journal moves, found none")
        # Large float tensors are their own masters (MeZO), in the dtype of the model.
        elif group in ("dense", "embeddings") and len(base.info[name].shape) > 1 and dtype != torch.float32:
            yield _FiledLazy(leaf, base)
        else:
            yield _Filed(leaf, base)


def _of_layers(base: Checkpoint) -> dict[str, Callable[[Listed], Leaf]]:
    """Makers of leaves for the tensors of quantized layers, by the tensor's name."""
    form = recognised(base)
    found: dict[str, Callable[[Listed], Leaf]] = {}
    if form is None:
        return found
    for spec in form.layers(base).values():
        for live in spec.live:
            found[live.name] = partial(_FiledLive, base=base, form=form, spec=spec, live=live)
        if (points := form.zero_points(base, spec)) is not None:
            found[points.name] = partial(_FiledZeros, base=base, form=form, spec=spec, points=points)
        if (codes := form.filed_codes(base, spec)) is not None:
            found[codes.name] = partial(_FiledCodes, base=base, form=form, spec=spec, codes=codes)
    return found
