"""The graph that onnxruntime makes of a file, with its fused integer kernels, and with inputs for what moves.

onnxruntime does not fuse products whose scales are inputs, and fused kernels compute other numbers: on CPUs without
VNNI their sums of 16 bits saturate. So the file is optimised as it is, with constants, and the constants that move
become inputs of the result. They keep their names unless an optimisation computes with them;
:class:`forq.models.graph.network.GraphNetwork` checks that by a run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.layers.kernels.ort import options, session
from forq.models.graph.inputs import graph_of
from forq.models.graph.session import Session, add_inputs, short, written

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_MERGES = ["ConstantSharing"]
"""Optimisations that give two constants of one value a common name."""


class PlainSession(Session):
    """The file as any program runs it: nothing moves."""

    def __init__(self, ckpt: Checkpoint) -> None:
        super().__init__(ckpt, ())

    def _made(self, ckpt: Checkpoint) -> InferenceSession:
        try:
            model, root = written(graph_of(ckpt))
            return session(model if isinstance(model, str) else model.SerializeToString(), root)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise FormatError(f"{ckpt.path}: onnxruntime cannot load it: {short(error)}") from error


class FusedSession(Session):
    """The graph of a plain session, with what moves as inputs.

    Args:
        follow: tensors that follow what moves; they become inputs where the fused graph reads them.

    Raises:
        FormatError: an optimisation computed with a tensor that moves, or onnxruntime cannot load the graph.
    """

    def __init__(self, ckpt: Checkpoint, live: Collection[str], follow: Collection[str]) -> None:
        self._follow = frozenset(follow)
        super().__init__(ckpt, live)

    def _made(self, ckpt: Checkpoint) -> InferenceSession:
        import onnx
        import onnxruntime as ort

        source, root = written(graph_of(ckpt))
        with tempfile.TemporaryDirectory(prefix="forq-", ignore_cleanup_errors=True) as folder:
            made = Path(folder) / "fused.onnx"
            settings = options(root)
            settings.optimized_model_filepath = str(made)
            try:
                ort.InferenceSession(
                    source if isinstance(source, str) else source.SerializeToString(),
                    settings,
                    providers=["CPUExecutionProvider"],
                    disabled_optimizers=_MERGES,
                )
                model = onnx.load(str(made), load_external_data=False)
            except Exception as error:  # onnxruntime's exceptions have no common base
                raise FormatError(f"{ckpt.path}: onnxruntime cannot load it: {short(error)}") from error
        held = {tensor.name for tensor in model.graph.initializer}
        if lost := self.live - held:
            raise FormatError(f"{ckpt.path}: {min(lost)}: expected it in the fused graph, found it computed with")
        self.live = (self.live | self._follow) & held
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in self.live]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        add_inputs(model, self._graph, self.live)
        try:
            return session(model.SerializeToString(), root, optimise=False)
        except Exception as error:
            raise FormatError(f"{ckpt.path}: onnxruntime cannot load its own graph: {short(error)}") from error
