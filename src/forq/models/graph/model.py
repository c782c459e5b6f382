"""A language model that is an ONNX graph: onnxruntime computes it whole, and what moves of it is an input of the graph.

Scales always are; codes and zero points become inputs when they are to move, since products are faster with constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.formats import Format
from forq.layers import heap
from forq.layers.layer import LayerSpec
from forq.layers.scratch import Scratch
from forq.models.graph.inputs import Inputs, logits_of
from forq.models.graph.layer import GraphLinear
from forq.models.graph.session import Session
from forq.tokens.batches import Batch

_LOGITS_BYTES = 128 << 20
"""Of a forward's logits at most, a single row aside."""


class GraphLM(nn.Module):
    """A causal language model of token ids to logits.

    What the losses ask of it is :meth:`scored_logits`, and of what writes text :meth:`reader`.

    Attributes:
        checkpoint, file_names, unlike: see :func:`forq.models.load.load`.
        layers: its quantized products; they hold the scales the graph reads, and read codes when asked for them.
    """

    checkpoint: Checkpoint
    file_names: Mapping[str, str]
    unlike: tuple[str, ...]
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, ckpt: Checkpoint, form: Format, specs: Mapping[str, LayerSpec]) -> None:
        super().__init__()
        self._inputs, self._logits = Inputs.of(ckpt), logits_of(ckpt)
        scratch = Scratch()
        self._places = {spec.name: GraphLinear(ckpt, form, spec, scratch) for spec in specs.values()}
        self.layers = nn.ModuleList(self._places.values())
        graph = ckpt.contents.values["graph"]
        shape = graph.outputs[self._logits].shape
        vocabulary = shape[-1] if shape and isinstance(shape[-1], int) else ckpt.config.get("vocab_size")
        limit = ckpt.config.get("max_position_embeddings")
        self.config = SimpleNamespace(
            model_type="onnx",
            vocab_size=vocabulary if type(vocabulary) is int else None,
            max_position_embeddings=limit if type(limit) is int else None,
            _attn_implementation="graph",
        )
        self._session: Session | None = Session(ckpt, self._live())

    def get_submodule(self, target: str) -> nn.Module:
        """A layer by its node's name, dots and all; or as any module's."""
        return self._places.get(target) or super().get_submodule(target)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        """Logits, float32 [rows, length, vocabulary], of rows without padding."""
        return SimpleNamespace(logits=self._run(input_ids))

    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        """Logits at the places of a batch that are scored, some rows' at a time, in the order of the answers.

        A graph gives those of every place; of so many rows at once that they stay bounded.
        """
        length = batch.input_ids.shape[1]
        some = max(1, _LOGITS_BYTES // (4 * length * (self.config.vocab_size or 1 << 16)))
        for start in range(0, len(batch.input_ids), some):
            here = (batch.row >= start) & (batch.row < start + some)
            if bool(here.any()):
                logits = self._run(batch.input_ids[start : start + some])
                yield logits[batch.row[here] - start, batch.column[here]]

    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        """What gives the logits of the next token of every row."""
        return Reader(self, prompts)

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


class Reader:
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
        logits: Tensor = self._model(ids).logits
        return logits[torch.arange(len(ends)), ends - 1]


def refuse(device: torch.device, dtype: torch.dtype | None, kernel: str, activations: str, adapter: object) -> None:
    """Settings that a graph leaves no room for.

    Raises:
        ConfigError: one of them is asked for.
    """
    if device.type != "cpu" or dtype not in (None, torch.float32):
        raise ConfigError(f"an ONNX model is tuned in float32 on a CPU, found {dtype} on {device.type}: --device cpu")
    if kernel == "reference" or activations != "float":
        raise ConfigError("onnxruntime computes an ONNX model whole: leave --kernel and --activations as they are")
    if adapter is not None:
        raise ConfigError("an ONNX model takes no adapter: its graph is fixed")
