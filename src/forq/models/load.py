"""From a checkpoint to a model whose scales are live: every tensor is accounted for, codes stay packed."""

from __future__ import annotations

from pathlib import Path

import torch

from forq.checkpoints import Checkpoint
from forq.layers.linear import Activations, Choice
from forq.layers.scratch import Scratch
from forq.models.adapters import peft
from forq.models.floats import fill_floats
from forq.models.generation import generation_config
from forq.models.graph.model import check_options, open_graph
from forq.models.layout import layout
from forq.models.loaded import LoadedModel, loaded
from forq.models.options import LoadOptions, check_choices, choose_device, default_dtype
from forq.models.quantized import fill_quantized
from forq.models.skeleton import compute_buffers, scale_rotary
from forq.models.unlike import unlike


def load(
    source: str | Path | Checkpoint,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    kernel: Choice = "auto",
    adapter: str | Path | None = None,
    activations: Activations = "float",
) -> LoadedModel:
    """Build the model of a checkpoint, in eval mode and without gradients.

    Quantized layers become :class:`~forq.layers.linear.QuantLinear`, other linear layers and embeddings
    :class:`~forq.layers.dense.DenseLinear` and :class:`~forq.layers.dense.DenseEmbedding`. The rest of the model is
    transformers' or diffusers' own; an ONNX graph is computed by onnxruntime.

    Args:
        source: a folder, a hub id, or a checkpoint already open.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, or ``cuda:N``.
        dtype: of activations and float weights; float32 on a CPU by default, the checkpoint's own on a GPU.
        kernel: of the quantized layers: ``ort`` (ONNX Runtime), ``triton`` (on a GPU), ``reference`` (plain torch), or
            ``auto``: the fastest that fits.
        adapter: folder of a LoRA adapter as PEFT stores it, to lay beside the layers.
        activations: ``int8`` rounds activations to 8 bits in front of layers of 8 bits with one scale per row, which
            is faster.

    Raises:
        FormatError: the checkpoint is damaged, of no known format or family, or holds a tensor too many or
            too few.
        ConfigError: the device is unknown, or not here; the kernel is unknown, or cannot compute a layer.
    """
    place = choose_device(device)
    check_choices(kernel, activations, place)
    ckpt = source if isinstance(source, Checkpoint) else Checkpoint.open(source)
    options = LoadOptions(place, dtype or default_dtype(ckpt, place), kernel, activations)
    if ckpt.graph is not None:
        check_options(options, adapter)
        return open_graph(ckpt)
    model = _built(ckpt, options)
    if (settings := generation_config(ckpt)) is not None:
        model.generation_config = settings
    if adapter is not None:
        peft.read(model, Path(adapter))
    return model


def _built(ckpt: Checkpoint, options: LoadOptions) -> LoadedModel:
    """The model of a checkpoint that is no graph, with all its tensors."""
    found = layout(ckpt, options.dtype)
    compute_buffers(found.model, options.device)
    scale_rotary(found.model, ckpt)
    scratch = Scratch()
    fill_quantized(found, ckpt, options, scratch)
    fill_floats(found.model, ckpt, found.names.file_of, options.device, options.dtype, scratch)
    found.model.eval().requires_grad_(False)
    differences = unlike(found.form, ckpt, options.activations)
    return loaded(found.model, ckpt, found.names.file_of, found.kind, differences)
