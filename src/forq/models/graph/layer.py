"""A quantized layer of a graph: its tensors that move, and the inputs it gives to the session."""

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
    """A layer that a graph computes. Called directly, as only tests do, it uses the reference kernel.

    Its integers are read from the file on demand; once they move, the layer keeps them in memory.
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

    @property
    def multiplies(self) -> bool:
        return False  # the session computes the outputs

    def use_moving_codes(self) -> None:
        """Keep the codes in memory, since they may change, and make them an input of the graph."""
        super().use_moving_codes()
        self._codes_move = True

    def use_moving_zeros(self) -> None:
        """Keep the zero points in memory and make them an input of the graph."""
        super().use_moving_zeros()
        self._zeros_move = True

    def use_file(self) -> bool:
        """Read the integers from the file on demand again; they are no inputs of the graph."""
        moved = super().use_file()
        self._weight = None
        self._codes_move = self._zeros_move = False
        return moved

    @property
    def inputs(self) -> Collection[str]:
        """Names of the tensors that are inputs of the graph, as in the checkpoint."""
        codes = [self.filed_codes.name] if self._codes_move and self.filed_codes else []
        zeros = [self.zero_points.name] if self._zeros_move and self.zero_points else []
        return [self.leaf_name, *codes, *zeros]

    def shown(self) -> Mapping[str, Tensor]:
        """The input tensors for the next run, contiguous and in the file's shapes.

        Integers are packed as in a saved file. A probe of codes is written into a copy, so that
        nothing must be undone after the run, even if it fails.
        """
        inputs = {self.leaf_name: self.scales}
        if self._codes_move and self.filed_codes is not None:
            inputs[self.filed_codes.name] = self.filed_codes.packed(self._displaced())
        if self._zeros_move and self.zero_points is not None:
            inputs[self.zero_points.name] = self.zero_points.packed(self.weight.zeros)
        return inputs

    def _displaced(self) -> Tensor:
        """The packed codes, displaced by the probe if there is one."""
        weight, probe = self.weight, self._probe
        if probe is None:
            return weight.codes
        displaced = weight.with_codes(weight.codes.clone())
        probe.put(displaced)
        return displaced.codes
