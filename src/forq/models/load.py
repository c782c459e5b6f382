"""Build a model from a checkpoint: every tensor is accounted for, and codes stay packed."""

from __future__ import annotations

from pathlib import Path

import torch

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.images import reads_images
from forq.layers.linear import Activations, Choice
from forq.layers.scratch import Scratch
from forq.models.adapters import peft
from forq.models.adapters import tokenizer as adapter_tokenizer
from forq.models.floats import fill_floats
from forq.models.generation import generation_config
from forq.models.graph.language_model import check_options, open_graph
from forq.models.graph.network import open_network
from forq.models.layout import layout as layout_of
from forq.models.loaded import LoadedModel, loaded
from forq.models.options import LoadOptions, check_choices, choose_device, default_dtype
from forq.models.quantized import compute_in_bfloat16, fill_quantized, slower
from forq.models.skeleton import compute_buffers, scale_rotary
from forq.models.unlike import embedded, unlike


def load(
    source: str | Path | Checkpoint,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    kernel: Choice = "auto",
    adapter: str | Path | None = None,
    activations: Activations = "float",
) -> LoadedModel:
    """Build the model of a checkpoint, in eval mode and without gradients.

    Quantized layers become :class:`~forq.layers.linear.QuantLinear`. Other linear layers and
    embeddings become :class:`~forq.layers.dense.DenseLinear` and
    :class:`~forq.layers.dense.DenseEmbedding`. The rest of the model comes from transformers or
    diffusers; onnxruntime computes an ONNX graph.

    Args:
        source: a folder, a hub id or an open checkpoint.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: dtype of activations and float weights. The default is float32 on a CPU and the
            checkpoint's dtype on a GPU.
        kernel: kernel of the quantized layers: ``native`` (C, compiled once on this machine), ``ort``
            (ONNX Runtime), ``triton`` (on a GPU), ``reference`` (plain torch), or ``auto``, the
            fastest that fits.
        adapter: folder of a LoRA adapter in PEFT's format, to attach to the layers.
        activations: ``bfloat16`` multiplies in bfloat16, which is faster on a CPU with AMX;
            ``int8`` rounds the inputs of 8-bit layers with one scale per row to 8 bits.

    Raises:
        FormatError: the checkpoint is damaged or of an unknown format or family, or its tensors do
            not match the model.
        ConfigError: the device is unknown or missing, or the kernel is unknown or cannot compute a
            layer.
    """
    place = choose_device(device)
    check_choices(kernel, activations, place)
    ckpt = source if isinstance(source, Checkpoint) else Checkpoint.open(source)
    options = LoadOptions(place, dtype or default_dtype(ckpt, place), kernel, activations)
    if ckpt.graph is not None:
        check_options(options, adapter)
        return open_network(ckpt) if reads_images(ckpt.graph) else open_graph(ckpt)
    model = _built(ckpt, options)
    if (settings := generation_config(ckpt)) is not None:
        model.generation_config = settings
    if adapter is None:
        model.unlike += embedded(ckpt)
    else:
        peft.read(model, Path(adapter))
        model.unlike += adapter_tokenizer.unlike(ckpt, Path(adapter))
    return model


def _built(ckpt: Checkpoint, options: LoadOptions) -> LoadedModel:
    """The model of a checkpoint with all its tensors; not for graphs."""
    layout = layout_of(ckpt, options.dtype)
    compute_buffers(layout.model, options.device)
    scale_rotary(layout.model, ckpt)
    scratch = Scratch()
    fill_quantized(layout, ckpt, options, scratch)
    fill_floats(layout.model, ckpt, layout.names.file_of, options.device, options.dtype, scratch)
    if options.activations == "bfloat16":
        compute_in_bfloat16(layout.model)
    layout.model.eval().requires_grad_(False)
    differences = unlike(layout.form, ckpt, options.activations) + slower(layout.model, options)
    return loaded(layout.model, ckpt, layout.names.file_of, layout.kind, differences)
