"""A language model that is an ONNX graph: onnxruntime computes it whole, and what moves is an input of the graph.

Scales always are; codes and zero points become inputs when they are to move, since products are faster with constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.formats import Format
from forq.layers import heap
from forq.layers.layer import LayerSpec
from forq.layers.scratch import Scratch
from forq.models.graph.inputs import Inputs, graph_of, logits_of
from forq.models.graph.layer import GraphLinear
from forq.models.graph.session import Session
from forq.models.layout import layout
from forq.models.loaded import LoadedModel
from forq.models.options import LoadOptions
from forq.models.unlike import unlike
from forq.tokens.batches import Batch
from forq.tokens.model import Reader

LOGITS_BYTES = 128 << 20
"""Limit of a forward's logits; a single row may exceed it."""


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """What a graph and the config.json beside it say of the model."""

    vocab_size: int | None
    max_position_embeddings: int | None
    model_type: str = "onnx"


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """Logits, float32 [rows, length, vocabulary]."""

    logits: Tensor


class GraphLM(LoadedModel):
    """A causal language model of token ids to logits.

    Attributes:
        layers: its quantized products; they hold the scales the graph reads, and read codes when asked for them.
    """

    config: GraphConfig
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, ckpt: Checkpoint, form: Format, specs: Mapping[str, LayerSpec]) -> None:
        super().__init__()
        self.checkpoint, self.names, self.kind, self.adapters = ckpt, {}, "causal", []
        self.unlike = unlike(form, ckpt)
        self._inputs, self._logits = Inputs.of(ckpt), logits_of(ckpt)
        scratch = Scratch()
        self._places = {spec.name: GraphLinear(ckpt, form, spec, scratch) for spec in specs.values()}
        self.layers = nn.ModuleList(self._places.values())
        shape = graph_of(ckpt).outputs[self._logits].shape
        vocabulary = shape[-1] if shape and isinstance(shape[-1], int) else ckpt.config.get("vocab_size")
        limit = ckpt.config.get("max_position_embeddings")
        self.config = GraphConfig(
            vocab_size=vocabulary if type(vocabulary) is int else None,
            max_position_embeddings=limit if type(limit) is int else None,
        )
        self._session: Session | None = Session(ckpt, self._live())

    def get_submodule(self, target: str) -> nn.Module:
        """A layer by its node's name, dots and all; or as any module's."""
        return self._places.get(target) or super().get_submodule(target)

    @property
    def takes_adapters(self) -> bool:
        """No: the graph is fixed."""
        return False

    def forward(self, input_ids: Tensor) -> GraphOutput:
        """Logits of rows without padding."""
        return GraphOutput(self._run(input_ids))

    def takes_packed(self, part: Tensor) -> bool:
        """No: a graph takes no mask of two dimensions per row."""
        return False

    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        """See :meth:`forq.tokens.model.LanguageModel.scored_logits`; some rows at a time.

        A graph gives logits at every place, so the number of rows is bounded by their bytes.
        """
        length = batch.input_ids.shape[1]
        some = max(1, LOGITS_BYTES // (4 * length * (self.config.vocab_size or 1 << 16)))
        for start in range(0, len(batch.input_ids), some):
            here = (batch.row >= start) & (batch.row < start + some)
            if bool(here.any()):
                logits = self._run(batch.input_ids[start : start + some])
                yield logits[batch.row[here] - start, batch.column[here]]

    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        """See :meth:`forq.tokens.model.LanguageModel.reader`."""
        return _GraphReader(self, prompts)

    def _run(self, input_ids: Tensor) -> Tensor:
        rows, length = input_ids.shape
        session = self._opened()
        shown = {name: tensor for layer in self._places.values() for name, tensor in layer.shown().items()}
        logits = session.run(self._inputs.given(input_ids.numpy()), shown, self._logits)
        if logits.ndim != 3 or logits.shape[:2] != (rows, length):
            raise FormatError(
                f"{self.checkpoint.path}: expected logits ({rows}, {length}, vocabulary), found shape {logits.shape}"
            )
        return torch.from_numpy(logits).float()

    def _opened(self) -> Session:
        """The session; another once more is to move than when it was made."""
        live = self._live()
        if self._session is None or self._session.live != live:
            self._session = None  # before the next, so that no two hold the codes
            self._session = Session(self.checkpoint, live)
            heap.trim()
        return self._session

    def _live(self) -> frozenset[str]:
        return frozenset(name for layer in self._places.values() for name in layer.inputs)


class _GraphReader:
    """Rows that grow: each is read whole again for its next token, since the graph's cache is not used.

    Padded on the right, where no place looks that counts.
    """

    def __init__(self, model: GraphLM, prompts: Sequence[Sequence[int]]) -> None:
        self._model, self._rows = model, [list(prompt) for prompt in prompts]

    def __call__(self, tokens: Sequence[int] | None) -> Tensor:
        """Logits [rows, vocabulary] after one more token of each row, if there is one."""
        for row, token in zip(self._rows, tokens or (), strict=False):
            row.append(token)
        longest = max(map(len, self._rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in self._rows])
        ends = torch.tensor([len(row) for row in self._rows])
        logits = self._model.forward(ids).logits
        return logits[torch.arange(len(ends)), ends - 1]


def open_graph(ckpt: Checkpoint) -> GraphLM:
    """The model of a checkpoint that is a graph, in eval mode and without gradients.

    Raises:
        FormatError: no layer is quantized, or the graph is no causal language model.
    """
    found = layout(ckpt)
    assert found.form is not None
    model = GraphLM(ckpt, found.form, found.specs)
    model.eval().requires_grad_(False)
    heap.trim()
    return model


def check_options(options: LoadOptions, adapter: object) -> None:
    """Refuse options that a graph leaves no room for.

    Raises:
        ConfigError: one of them is asked for.
    """
    if options.device.type != "cpu" or options.dtype != torch.float32:
        raise ConfigError(
            f"an ONNX model is tuned in float32 on a CPU, found {options.dtype} on {options.device.type}: --device cpu"
        )
    if options.kernel == "reference" or options.activations != "float":
        raise ConfigError("onnxruntime computes an ONNX model whole: leave --kernel and --activations as they are")
    if adapter is not None:
        raise ConfigError("an ONNX model takes no adapter: its graph is fixed")
