"""A quantized product of a graph: what of it moves, and what the session is shown in its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.formats import Format
from forq.layers.layer import LayerSpec
from forq.layers.linear import QuantLinear
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight
from forq.models import parts


class GraphLinear(QuantLinear):
    """A layer that a graph computes. Asked alone, as only tests do, the reference answers.

    Its integers are read from the file when somebody asks for them; once they are to move it keeps them.
    """

    def __init__(self, ckpt: Checkpoint, form: Format, spec: LayerSpec, scratch: Scratch) -> None:
        def read() -> QuantWeight:
            weight = form.read(ckpt, spec).weight
            assert isinstance(weight, QuantWeight)
            return weight

        super().__init__(parts.read(form, ckpt, spec), spec.live, scratch)
        self._weight, self._read = None, read
        self.filed_codes = form.filed_codes(ckpt, spec)
        self.zero_points = form.zero_points(ckpt, spec)
        self._codes_move = self._zeros_move = False

    @property
    def kernel(self) -> str:
        return "ort"

    def use_moving_codes(self) -> None:
        """Keep codes that may change at any time, and show them to the graph."""
        super().use_moving_codes()
        self._codes_move = True

    def use_moving_zeros(self) -> None:
        """The same of zero points."""
        super().use_moving_zeros()
        self._zeros_move = True

    @property
    def inputs(self) -> Collection[str]:
        """The checkpoint's names of the tensors that are inputs of the graph."""
        codes = [self.filed_codes.name] if self._codes_move and self.filed_codes else []
        zeros = [self.zero_points.name] if self._zeros_move and self.zero_points else []
        return [self.leaf_name, *codes, *zeros]

    def shown(self) -> Mapping[str, Tensor]:
        """Those tensors as the next run is to read them, contiguous and in the file's shapes.

        Integers are packed as a save would pack them. A probe of codes goes into a copy: the layer's own are never
        displaced, and nothing is to be undone after the run, however it ends.
        """
        found = {self.leaf_name: self.scales}
        if self._codes_move and self.filed_codes is not None:
            found[self.filed_codes.name] = self.filed_codes.packed(self._displaced())
        if self._zeros_move and self.zero_points is not None:
            found[self.zero_points.name] = self.zero_points.packed(self.weight.zeros)
        return found

    def _displaced(self) -> Tensor:
        """The codes with a probe in them, if there is one: packed as the layer packs its own."""
        weight = self.weight
        if self.code_overlay is None and self.sparse_codes is None:
            return weight.codes
        other = weight.with_codes(weight.codes.clone())
        self._put_probe(other)
        return other.codes
