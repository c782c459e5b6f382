"""What a graph that reads images takes and gives, from its inputs and outputs alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forq.checkpoints.containers.onnx.graph import Graph
from forq.checkpoints.containers.onnx.probabilities import apart_of, least_of
from forq.errors import ConfigError, FormatError

_FLOAT32, _UINT8 = 1, 2
_CHANNELS = (1, 3)

Shape = tuple[int | None, ...] | None
"""Sizes of an output; an open size is None, and so is a shape that the file does not give."""


@dataclass(frozen=True, slots=True)
class GraphImages:
    """Images and outputs of a graph.

    Attributes:
        path: the graph's file.
        folder: the checkpoint's folder, where a preprocessor_config.json may lie.
        name: name of the input.
        floats: whether it takes float32; else uint8.
        channels_first: whether its axes are (rows, channels, height, width); else channels come last.
        channels, height, width: size of an image; None: any.
        rows: number of images in a run of the graph, where it is fixed.
        outputs: shapes of the outputs, by name.
        probabilities: outputs that a Softmax computes, and the smallest probability that each can tell from 0.
        independent: outputs that a Sigmoid computes: a probability of its own for each class.
        apart: whether each image has to be computed in a run of its own, since a DynamicQuantizeLinear
            measures the range of all rows together.
        detects: whether a NonMaxSuppression chooses among boxes.
    """

    path: Path
    folder: Path
    name: str
    floats: bool
    channels_first: bool
    channels: int | None
    height: int | None
    width: int | None
    rows: int | None
    outputs: Mapping[str, Shape]
    probabilities: Mapping[str, float]
    independent: frozenset[str]
    apart: bool
    detects: bool

    @classmethod
    def of(cls, graph: Graph, folder: Path) -> GraphImages:
        """The images of a graph.

        Raises:
            FormatError: the graph has not exactly one input, or it is no batch of images.
        """
        inputs = {name: value for name, value in graph.inputs.items() if name not in graph.initialisers}
        if len(inputs) != 1:
            raise FormatError(
                f"{graph.path}: expected one input, images, or a causal language model's input_ids; found "
                f"{', '.join(inputs) or 'none'!r:.200}"
            )
        ((name, value),) = inputs.items()
        if value.kind not in (_FLOAT32, _UINT8) or value.shape is None or len(value.shape) != 4:
            raise FormatError(
                f"{graph.path}: {name!r:.80}: expected images, float32 or uint8 of four axes, found type {value.kind} "
                f"of shape {value.shape}"
            )
        rows, *axes = (size if isinstance(size, int) and size > 0 else None for size in value.shape)
        floats = value.kind == _FLOAT32
        if axes[0] in _CHANNELS or axes[2] in _CHANNELS:
            first = axes[0] in _CHANNELS and (floats or axes[2] not in _CHANNELS)
        else:
            first = floats
        channels, height, width = axes if first else (axes[2], axes[0], axes[1])
        outputs: dict[str, Shape] = {
            key: None
            if one.shape is None
            else tuple(size if isinstance(size, int) and size > 0 else None for size in one.shape)
            for key, one in graph.outputs.items()
        }
        least = {key: least_of(graph, key) for key in outputs}
        ops = {node.op for node in graph.nodes}
        return cls(
            graph.path, folder, name, floats, first, channels, height, width, rows, outputs,
            {key: value for key, value in least.items() if value is not None},
            frozenset(key for key in outputs if apart_of(graph, key)),
            apart=bool(ops & {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}),
            detects="NonMaxSuppression" in ops,
        )  # fmt: skip

    def scores(self, output: str | None) -> str:
        """The name of the output that holds scores of classes, (rows, classes).

        Raises:
            ConfigError: there is no such output, several and none is named, or it is of another task.
        """
        if self.detects:
            raise ConfigError(
                f"{self.path}: expected a classifier, found a NonMaxSuppression: detection is not supported; use "
                "--reward with a graph that gives scores of classes"
            )
        if output is None and len(self.outputs) > 1:
            raise ConfigError(
                f"{self.path}: expected one output, found {', '.join(self.outputs)}; name one: --set task.output=NAME"
            )
        name = next(iter(self.outputs)) if output is None else output
        if name not in self.outputs:
            raise ConfigError(f"{self.path}: expected an output among {', '.join(self.outputs)}, found {name!r}")
        shape = self.outputs[name]
        if shape is None or len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1)):
            return name
        what = {4: "segmentation", 3: "detection"}.get(len(shape), f"an output of {len(shape)} axes")
        raise ConfigError(
            f"{self.path}: {name}: expected scores (images, classes), found shape {shape}: {what} is not supported"
        )

    def check_one_class(self, output: str) -> None:
        """Refuse an output whose classes do not exclude each other: the cross-entropy of a softmax is not its loss.

        Raises:
            ConfigError: a Sigmoid computes it.
        """
        if output in self.independent:
            raise ConfigError(
                f"{self.path}: {output}: expected scores of which a softmax makes the probabilities of classes, found "
                "those of a Sigmoid, which gives each class a probability of its own; export the graph without it, "
                "or score the outputs yourself: --reward"
            )

    def classes(self, output: str) -> int | None:
        """The number of classes of an output, if the file gives it."""
        shape = self.outputs[output]
        return shape[1] if shape is not None and len(shape) > 1 else None


def reads_images(graph: Graph) -> bool:
    """Whether a graph is a network on images: it does not take tokens."""
    return "input_ids" not in graph.inputs
