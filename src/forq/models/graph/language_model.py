"""A language model that is an ONNX graph: onnxruntime computes it, and tensors that move are its inputs.

Scales are always inputs, and so are integer biases that follow them. Codes and zero points become
inputs only if they move, since products with constants are faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.formats import Format
from forq.formats.codecs.onnx_biases import Biases
from forq.formats.codecs.onnx_products import products
from forq.layers import heap
from forq.layers.layer import LayerSpec
from forq.models.graph.base import GraphConfig, GraphModel
from forq.models.graph.causal import check_causal
from forq.models.graph.inputs import Inputs, graph_of, logits_of
from forq.models.graph.session import Session
from forq.models.layout import layout as layout_of
from forq.models.options import LoadOptions
from forq.tokens.batches import Batch
from forq.tokens.model import Reader

LOGITS_BYTES = 128 << 20
"""Most bytes of logits in a forward; a single row may exceed it."""


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """Logits, float32 [rows, length, vocabulary]."""

    logits: Tensor


class GraphLM(GraphModel):
    """A causal language model that maps token ids to logits."""

    def __init__(self, ckpt: Checkpoint, form: Format, specs: Mapping[str, LayerSpec]) -> None:
        super().__init__(ckpt, form, specs, "causal")
        self._inputs, self._logits = Inputs.of(ckpt), logits_of(ckpt)
        own = [product for product in products(graph_of(ckpt)).values() if product.name in self._places]
        self._biases = Biases(ckpt, own)
        shape = graph_of(ckpt).outputs[self._logits].shape
        vocabulary = shape[-1] if shape and isinstance(shape[-1], int) else ckpt.config.get("vocab_size")
        limit = ckpt.config.get("max_position_embeddings")
        self.config = GraphConfig(
            vocab_size=vocabulary if type(vocabulary) is int else None,
            max_position_embeddings=limit if type(limit) is int else None,
        )
        self._session: Session | None = Session(ckpt, self._live())

    def forward(self, input_ids: Tensor) -> GraphOutput:
        """Logits of rows without padding."""
        return GraphOutput(self._run(input_ids))

    def takes_packed(self, part: Tensor) -> bool:
        """``False``: a graph takes no two-dimensional mask per row."""
        return False

    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        """See :meth:`forq.tokens.model.LanguageModel.scored_logits`.

        A graph computes logits at every position, so the rows are split to bound the bytes of
        logits.
        """
        length = batch.input_ids.shape[1]
        at_once = max(1, LOGITS_BYTES // (4 * length * (self.config.vocab_size or 1 << 16)))
        for start in range(0, len(batch.input_ids), at_once):
            here = (batch.row >= start) & (batch.row < start + at_once)
            if bool(here.any()):
                logits = self._run(batch.input_ids[start : start + at_once])
                yield logits[batch.row[here] - start, batch.column[here]]

    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        """See :meth:`forq.tokens.model.LanguageModel.reader`."""
        return _GraphReader(self, prompts)

    def _run(self, input_ids: Tensor) -> Tensor:
        rows, length = input_ids.shape
        session = self._opened()
        inputs = {name: tensor for layer in self._places.values() for name, tensor in layer.shown().items()}
        inputs |= self._biases.following(inputs)
        logits = session.run(self._inputs.given(input_ids.numpy()), inputs, self._logits)
        if logits.ndim != 3 or logits.shape[:2] != (rows, length):
            raise FormatError(
                f"{self.checkpoint.path}: expected logits ({rows}, {length}, vocabulary), found shape {logits.shape}"
            )
        return torch.from_numpy(logits).float()

    def _opened(self) -> Session:
        """The session; it is made again if other tensors move than before."""
        live = self._live()
        if self._session is None or self._session.live != live:
            self._session = None  # released before the next is made, so that the codes are not in memory twice
            self._session = Session(self.checkpoint, live)
            heap.trim()
        return self._session

    def _live(self) -> frozenset[str]:
        moving = {name for layer in self._places.values() for name in layer.inputs}
        return frozenset(moving | self._biases.names(moving))


class _GraphReader:
    """Reads growing rows: each row is read again for its next token, since the graph's cache is not used.

    Rows are padded on the right, where no scored position attends.
    """

    def __init__(self, model: GraphLM, prompts: Sequence[Sequence[int]]) -> None:
        self._model, self._rows = model, [list(prompt) for prompt in prompts]

    def __call__(self, tokens: Sequence[int] | None) -> Tensor:
        """Logits [rows, vocabulary] after appending a token to each row, if tokens are given."""
        for row, token in zip(self._rows, tokens or (), strict=False):
            row.append(token)
        longest = max(map(len, self._rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in self._rows])
        ends = torch.tensor([len(row) for row in self._rows])
        logits = self._model.forward(ids).logits
        return logits[torch.arange(len(ends)), ends - 1]


def open_graph(ckpt: Checkpoint) -> GraphLM:
    """The model of an ONNX checkpoint, in eval mode and without gradients.

    Raises:
        FormatError: no layer is quantized, or the graph is not a causal language model.
    """
    layout = layout_of(ckpt)
    assert layout.form is not None
    model = GraphLM(ckpt, layout.form, layout.specs)
    model.eval().requires_grad_(False)
    check_causal(ckpt, lambda tokens: model.forward(tokens).logits, model.config.vocab_size)
    heap.trim()
    return model


def check_options(options: LoadOptions, adapter: object) -> None:
    """Refuse options that a graph does not support.

    Raises:
        ConfigError: such an option is set.
    """
    if options.device.type != "cpu" or options.dtype != torch.float32:
        raise ConfigError(
            f"an ONNX model is tuned in float32 on a CPU, found {options.dtype} on {options.device.type}: --device cpu"
        )
    if options.kernel not in ("auto", "ort") or options.activations != "float":
        raise ConfigError(
            "onnxruntime computes the whole ONNX model: expected --kernel auto or ort and --activations float, found "
            f"{options.kernel} and {options.activations}; leave both at their defaults"
        )
    if adapter is not None:
        raise ConfigError("an ONNX model takes no adapter, since its graph is fixed")
