"""A network on images that is an ONNX graph; onnxruntime computes it, and tensors that move are inputs of its session.

A network of which nothing moves is the file in a plain session. Otherwise the plain session's own fused graph computes
it. That this is right is checked at the first run: with all moving tensors displaced, the outputs have to be those of
a plain session of a file that holds the displaced tensors. If they are not, or an optimisation computed with a
tensor that moves, the graph runs as the file says, unfused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.images import GraphImages
from forq.coordinates.leaf import Leaf
from forq.errors import FormatError
from forq.formats import Format
from forq.formats.codecs.onnx_biases import Biases
from forq.formats.codecs.onnx_products import products
from forq.layers import heap
from forq.layers.layer import SHARED, LayerSpec
from forq.layers.leaves import TensorLeaf
from forq.models.graph.base import GraphConfig, GraphModel
from forq.models.graph.check import difference
from forq.models.graph.fused import FusedSession, PlainSession
from forq.models.graph.inputs import graph_of
from forq.models.graph.session import Session
from forq.models.layout import layout as layout_of

log = logging.getLogger("forq")

CLOSE = 1e-4
"""Largest difference between the fused graph and a plain session, relative to the largest output."""


class GraphNetwork(GraphModel):
    """A network that maps images to the outputs of its graph.

    Attributes:
        images: the images that the graph takes, and its outputs.
        training_session: how the graph is run while tensors move: ``fused`` or ``as written``; "" before.
    """

    def __init__(self, ckpt: Checkpoint, form: Format, specs: Mapping[str, LayerSpec]) -> None:
        super().__init__(ckpt, form, specs, "images")
        self.images = GraphImages.of(graph_of(ckpt), ckpt.folder)
        self.config = GraphConfig(vocab_size=None, max_position_embeddings=None)
        self._beside = tuple(
            TensorLeaf(name, group, torch.float32, ckpt.read(name).float(), 0 if group == "biases" else SHARED)
            for name, group in form.beside(ckpt).items()
        )
        self._biases = Biases(ckpt, products(graph_of(ckpt)).values())
        self._moving: frozenset[str] = frozenset()
        self._session: Session | None = None
        self.training_session = ""

    def own_leaves(self) -> Iterable[Leaf]:
        """Float biases and scales of activations."""
        return self._beside

    def prepare(self, moving: Iterable[Leaf]) -> None:
        """Make these leaves, and what follows them, inputs of the session."""
        self._moving, self._session = frozenset(leaf.name for leaf in moving), None

    def forward(self, images: Tensor, output: str | None = None) -> Tensor:
        """An output of the graph, float32.

        Args:
            images: in the graph's own type and order of axes.
            output: its name; None: the only one.

        Raises:
            FormatError: onnxruntime cannot run the graph, or it gives other rows than it was given.
        """
        name = next(iter(self.images.outputs)) if output is None else output
        missing = max(0, (self.images.rows or 0) - len(images))  # a graph of fixed rows gets its last image again
        whole = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images
        given = {self.images.name: np.ascontiguousarray(whole.numpy())}
        shown = self._shown()
        run = self._opened(given, shown, name).run(given, shown, name)
        found = torch.from_numpy(run[: len(images)].copy()).float()
        if len(found) != len(images):
            raise FormatError(
                f"{self.checkpoint.path}: {name}: expected a row for each of {len(images)} images, found shape "
                f"{tuple(found.shape)}"
            )
        return found

    def _shown(self) -> dict[str, Tensor]:
        """The tensors that move, as they are now, and the integer biases that follow them."""
        if not self._moving:
            return {}
        held = {name: tensor for layer in self._places.values() for name, tensor in layer.shown().items()}
        held |= {leaf.name: leaf.tensor for leaf in self._beside}
        moving = {name: held[name] for name in sorted(self._moving)}
        return moving | self._biases.following(moving)

    def _opened(self, given: Mapping[str, np.ndarray], shown: Mapping[str, Tensor], output: str) -> Session:
        if self._session is None:
            self._session = self._made(given, shown, output)
            heap.trim()
        return self._session

    def _made(self, given: Mapping[str, np.ndarray], shown: Mapping[str, Tensor], output: str) -> Session:
        if not self._moving:
            return PlainSession(self.checkpoint)
        follow = self._biases.names(self._moving)
        try:
            fused = FusedSession(self.checkpoint, self._moving, follow)
            away = difference(self.checkpoint, fused, self._biases, given, shown, output)
        except FormatError as error:
            away, reason = float("inf"), str(error)
        else:
            reason = f"its outputs are {away:.1g} away from those of a plain session"
        if away <= CLOSE:
            self.training_session = "fused"
            return fused
        log.warning("%s is trained unfused, as its file is written: %s", self.checkpoint.path, reason)
        self.training_session = "as written"
        return Session(self.checkpoint, self._moving | follow)


def open_network(ckpt: Checkpoint) -> GraphNetwork:
    """The network of an ONNX checkpoint, in eval mode and without gradients.

    Raises:
        FormatError: no layer is quantized, or the graph does not take images.
    """
    layout = layout_of(ckpt)
    assert layout.form is not None
    model = GraphNetwork(ckpt, layout.form, layout.specs)
    model.eval().requires_grad_(False)
    heap.trim()
    return model
