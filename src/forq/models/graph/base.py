"""What all models that are an ONNX graph share: their quantized layers, found by the names of their nodes."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from forq.checkpoints import Checkpoint
from forq.formats import Format
from forq.layers.layer import LayerSpec
from forq.layers.scratch import Scratch
from forq.models.graph.layer import GraphLinear
from forq.models.loaded import LoadedModel
from forq.models.unlike import unlike
from forq.tokens.model import Kind


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """The configuration of a graph, from the graph itself and its config.json."""

    vocab_size: int | None
    max_position_embeddings: int | None
    model_type: str = "onnx"


class GraphModel(LoadedModel, ABC):
    """A model that onnxruntime computes whole, in float32 on a CPU.

    Attributes:
        layers: its quantized layers. They hold the scales that the graph reads, and read codes on demand.

    Args:
        kind: what the model takes and gives, as :attr:`forq.models.loaded.LoadedModel.kind` says it.
        specs: its quantized layers, by name.
    """

    config: GraphConfig
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, ckpt: Checkpoint, form: Format, specs: Mapping[str, LayerSpec], kind: Kind) -> None:
        super().__init__()
        self.checkpoint, self.names, self.kind, self.adapters = ckpt, {}, kind, []
        self.lent = {}
        self.unlike = unlike(form, ckpt)
        scratch = Scratch()
        self._places = {spec.name: GraphLinear(ckpt, form, spec, scratch) for spec in specs.values()}
        self.layers = nn.ModuleList(self._places.values())

    def get_submodule(self, target: str) -> nn.Module:
        """A layer by its node's name, which may contain dots; or any sub-module."""
        return self._places.get(target) or super().get_submodule(target)

    @property
    def takes_adapters(self) -> bool:
        """``False``: the graph is fixed."""
        return False
