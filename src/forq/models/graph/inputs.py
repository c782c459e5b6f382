"""Inputs and outputs of a graph that is a causal language model, initialisers excluded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.graph import Graph
from forq.errors import FormatError

_FLOATS: Mapping[int, type[np.floating]] = {1: np.float32, 10: np.float16}
_INTEGERS: Mapping[int, type[np.integer]] = {6: np.int32, 7: np.int64}
_GIVEN = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True, slots=True)
class Past:
    """An input for cached keys and values; here the cache is always empty."""

    name: str
    dtype: type[np.floating]
    shape: tuple[int | str, ...]

    def empty(self, rows: int) -> np.ndarray:
        return np.zeros([rows, *(0 if isinstance(size, str) else size for size in self.shape[1:])], self.dtype)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a graph.

    Attributes:
        tokens: dtypes of the inputs for tokens, mask and positions, by name.
        past: inputs for cached keys and values.
    """

    tokens: Mapping[str, type[np.number]]
    past: tuple[Past, ...]

    @classmethod
    def of(cls, ckpt: Checkpoint) -> Inputs:
        """The inputs of a checkpoint's graph.

        Raises:
            FormatError: the graph has an input that a causal language model does not take.
        """
        graph = graph_of(ckpt)
        tokens: dict[str, type[np.number]] = {}
        past = []
        for name, value in graph.inputs.items():
            if name in graph.initialisers:  # old files list initialisers among the inputs
                continue
            if name in _GIVEN and value.kind in _INTEGERS:
                tokens[name] = _INTEGERS[value.kind]
            elif name.startswith("past_key_values.") and value.kind in _FLOATS and value.shape and len(value.shape) > 2:
                if any(isinstance(size, int) and not 0 < size < 1 << 20 for size in value.shape):
                    raise FormatError(f"{ckpt.path}: {name}: expected a valid shape, found {value.shape}")
                past.append(Past(name, _FLOATS[value.kind], value.shape))
            else:
                raise FormatError(
                    f"{ckpt.path}: expected a causal language model with {', '.join(_GIVEN)} and past_key_values, "
                    f"found the input {name!r:.80}; export the decoder alone, with or without its cache"
                )
        if "input_ids" not in tokens:
            raise FormatError(
                f"{ckpt.path}: expected an input called input_ids, found {', '.join(graph.inputs)!r:.200}"
            )
        return cls(tokens, tuple(past))

    def given(self, input_ids: np.ndarray) -> dict[str, np.ndarray]:
        """Input arrays for rows of tokens without padding."""
        rows, length = input_ids.shape
        arrays = {
            "input_ids": input_ids,
            "attention_mask": np.ones((rows, length)),
            "position_ids": np.broadcast_to(np.arange(length), (rows, length)),
        }
        tokens = {name: np.ascontiguousarray(arrays[name].astype(dtype)) for name, dtype in self.tokens.items()}
        return tokens | {past.name: past.empty(rows) for past in self.past}


def graph_of(ckpt: Checkpoint) -> Graph:
    """The graph of an ONNX checkpoint."""
    assert ckpt.graph is not None
    return ckpt.graph


def logits_of(ckpt: Checkpoint) -> str:
    """Name of the output that holds the logits.

    Raises:
        FormatError: the graph has no such output.
    """
    graph = graph_of(ckpt)
    if "logits" not in graph.outputs or graph.outputs["logits"].kind not in _FLOATS:
        raise FormatError(
            f"{ckpt.path}: expected an output of floats called logits, found {', '.join(graph.outputs)!r:.200}; only "
            "causal language models can be tuned"
        )
    return "logits"
