"""Fill a model's float tensors: linear layers, embeddings, norms and biases."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from forq.checkpoints import Checkpoint, finite
from forq.layers.dense import DenseEmbedding, DenseLeaf, DenseLinear
from forq.layers.scratch import Scratch
from forq.models.skeleton import put


def fill_floats(
    model: nn.Module,
    ckpt: Checkpoint,
    file_of: Mapping[str, str],
    device: torch.device,
    dtype: torch.dtype,
    scratch: Scratch,
) -> None:
    """Read the tensor of every float parameter; places with the same tensor share a parameter.

    Linear layers and plain embeddings become :class:`DenseLinear` and :class:`DenseEmbedding`. All
    other modules stay.
    """
    shared: dict[str, nn.Parameter] = {}
    leaves: dict[str, DenseLeaf] = {}

    def parameter(place: str) -> nn.Parameter:
        name = file_of[place]
        if name not in shared:
            tensor = finite.check(name, ckpt.read(name)).to(device=device, dtype=dtype)
            shared[name] = nn.Parameter(tensor, requires_grad=False)
        return shared[name]

    # A dense layer adds its probe in its own forward. If a module of another kind reads the same tensor (Gemma's scaled
    # embedding, tied to the head), that module would miss the probe, so such a tensor is displaced in storage instead.
    elsewhere = {
        file_of[f"{name}.{own}"]
        for name, module in model.named_modules()
        if not isinstance(module, nn.Linear) and type(module) is not nn.Embedding
        for own, _ in module.named_parameters(recurse=False)
        if f"{name}.{own}" in file_of
    }
    embeds = {file_of[f"{name}.weight"] for name, module in model.named_modules() if type(module) is nn.Embedding}

    def leaf(place: str) -> DenseLeaf:
        name = file_of[place]
        if name not in leaves:
            group = "embeddings" if name in embeds else "dense"
            leaves[name] = DenseLeaf(name, ckpt.info[name].dtype, parameter(place), scratch, group)
        return leaves[name]

    for name, module in list(model.named_modules()):
        weight, bias = f"{name}.weight", f"{name}.bias"
        if isinstance(module, nn.Linear) and file_of.get(weight) in elsewhere:
            module.weight = parameter(weight)
            if bias in file_of:
                module.bias = parameter(bias)
        elif isinstance(module, nn.Linear):
            offset = parameter(bias) if bias in file_of else None
            put(model, name, DenseLinear(parameter(weight), offset, leaf(weight)))
        elif type(module) is nn.Embedding:
            put(model, name, DenseEmbedding(parameter(weight), leaf(weight)))
        else:
            for own, _ in list(module.named_parameters(recurse=False)):
                place = f"{name}.{own}" if name else own
                if place in file_of:
                    setattr(module, own, parameter(place))
            for own, _ in list(module.named_buffers(recurse=False)):
                # Position tables may be stored in the file; they do not move.
                if (place := f"{name}.{own}" if name else own) in file_of:
                    setattr(module, own, ckpt.read(file_of[place]).to(device=device, dtype=dtype))
