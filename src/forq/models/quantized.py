"""Put a checkpoint's quantized layers into a model, each with the kernel that computes it."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import nn

from forq.checkpoints import Checkpoint
from forq.devices import triton_for
from forq.errors import ConfigError, FormatError
from forq.formats import Format
from forq.layers import heap
from forq.layers.dense import DenseLinear
from forq.layers.embedding import QuantEmbedding
from forq.layers.kernels import bfloat16, int8, ort
from forq.layers.kernels.native import build, products
from forq.layers.kernels.native import fill as native
from forq.layers.layer import LayerSpec, Parts
from forq.layers.linear import Activations, QuantLinear, Unpacked
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight, Weight
from forq.models import parts as layer_parts
from forq.models.blocks import block_of
from forq.models.layout import Layout
from forq.models.names import ties
from forq.models.options import LoadOptions
from forq.models.skeleton import embedding_scale, put, sizes


def fill_quantized(layout: Layout, ckpt: Checkpoint, options: LoadOptions, scratch: Scratch) -> None:
    """Replace a model's layers by the checkpoint's quantized ones; heads tied to a quantized embedding share its table.

    Raises:
        FormatError: a layer does not fit its module.
        ConfigError: the kernel cannot compute a layer, or no layer takes int8 activations.
    """
    if layout.form is not None:
        for spec in layout.specs.values():
            _fill(layout.form, layout, ckpt, spec, options, scratch)
        _tie_heads(layout.model)
    if options.activations == "int8" and "int8" not in kernels(layout.model):
        raise ConfigError(
            "activations int8: expected layers of 8 bits with one scale a row, symmetric, in float32 on a CPU; "
            "found none (forq quantize --bits 8 --group-size -1 makes them)"
        )


def multiplying(model: nn.Module) -> list[QuantLinear | DenseLinear]:
    """The layers that ``--activations bfloat16`` is about: those of the numbered blocks, and a language model's head.

    The head only where forq's own function multiplies: torch's would round the logits.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, QuantLinear | DenseLinear)]
    layers = [module for name, module in found if block_of(name) is not None]
    head = cast(Any, model).get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if layers and isinstance(head, QuantLinear | DenseLinear) and products.able(head.in_features):
        layers.append(head)
    return layers


def compute_in_bfloat16(model: nn.Module) -> None:
    """Let a model multiply in bfloat16.

    Raises:
        ConfigError: the model has no linear layer in a numbered block.
    """
    if not (layers := multiplying(model)):
        raise ConfigError(
            "activations bfloat16: expected linear layers in numbered blocks, found none; leave it at float"
        )
    for layer in layers:
        layer.in_bfloat16 = True


def multiplier(model: nn.Module) -> str | None:
    """Whose function multiplies in bfloat16, which decides the numbers: ``own``, ``torch`` or both; None: none does."""
    layers = [layer for layer in model.modules() if isinstance(layer, QuantLinear | DenseLinear) and layer.in_bfloat16]
    return " and ".join(sorted({"own" if products.able(layer.in_features) else "torch" for layer in layers})) or None


def activations(model: nn.Module) -> Activations:
    """What the inputs of a model's layers are rounded to."""
    if multiplier(model) is not None:
        return "bfloat16"
    return "int8" if "int8" in kernels(model) else "float"


def kernels(model: nn.Module) -> dict[str, list[str]]:
    """Names of the scales of a model's quantized layers, by the kernel that computes the layer."""
    layers: dict[str, list[str]] = {}
    for module in model.modules():
        if isinstance(module, QuantLinear):
            layers.setdefault(module.kernel, []).append(module.leaf_name)
    return layers


def _fill(
    form: Format, layout: Layout, ckpt: Checkpoint, spec: LayerSpec, options: LoadOptions, scratch: Scratch
) -> None:
    where = layout.names.modules[spec.name]
    parts = layer_parts.read(form, ckpt, spec)
    old = layout.model.get_submodule(where)
    layer = _quant_linear(old, spec, parts, options.device, scratch)
    del parts  # a kernel may repack the codes; this reference would keep the old ones alive
    embeds = isinstance(old, nn.Embedding)
    put(layout.model, where, QuantEmbedding(layer, options.dtype, embedding_scale(old)) if embeds else layer)
    layer.zero_points = form.zero_points(ckpt, spec)
    layer.filed_codes = form.filed_codes(ckpt, spec)
    read = partial(_codes, form, ckpt, spec)
    layer.reads(read)
    _choose_kernel(layer, spec, read, options, embeds)


def _choose_kernel(
    layer: QuantLinear, spec: LayerSpec, read: partial[Weight], options: LoadOptions, embeds: bool
) -> None:
    """Give a layer the kernel that is asked for, or the fastest that fits.

    Raises:
        ConfigError: a kernel is asked for that cannot compute the layer.
    """
    device, dtype, kernel = options.device, options.dtype, options.kernel
    layer.unpacked = _unpacked(layer.frozen, spec, options)
    if options.activations == "int8" and int8.unfit(layer.frozen, device, dtype) is None:
        layer.use(int8.Kernel, read)
        heap.trim()
        return
    if kernel in ("reference", "native", "triton") or embeds or options.activations == "bfloat16":
        return
    why = ort.unfit(layer.frozen, device, dtype)
    if why is None:
        layer.use(ort.Kernel, read)
        heap.trim()
    elif kernel == "ort":
        raise ConfigError(f"kernel ort: {spec.name}: {why}; take auto or reference")


def _unpacked(weight: Weight, spec: LayerSpec, options: LoadOptions) -> Unpacked:
    """The kernel that computes a layer where none has packed its codes again."""
    if options.kernel in ("auto", "triton") and isinstance(weight, QuantWeight) and triton_for(options.device.type):
        return "triton"
    if options.kernel not in ("auto", "native"):
        return "reference"
    why = native.unfit(weight, options.device)
    if why is not None and options.kernel == "native":
        raise ConfigError(f"kernel native: {spec.name}: {why}; take auto or reference")
    return "native" if why is None else "reference"


def free_buffers(model: nn.Module) -> None:
    """Free the dense buffers of quantized layers before something else needs the memory."""
    for module in model.modules():
        if isinstance(module, QuantLinear):
            module.scratch.clear()
    heap.trim()


def slower(model: nn.Module, options: LoadOptions) -> tuple[str, ...]:
    """Sentences on what makes layers slower than they could be: no native kernel, or a CPU without bfloat16."""
    plain = _without_compiler(model, options)
    if options.activations != "bfloat16":
        return plain
    if bfloat16.slow():
        return (*plain, "this CPU has no instructions for bfloat16: --activations bfloat16 is slower here than float")
    why = build.products()
    return (*plain, f"torch multiplies in bfloat16, which is slower: {why}") if isinstance(why, str) else plain


def _without_compiler(model: nn.Module, options: LoadOptions) -> tuple[str, ...]:
    if options.kernel != "auto":
        return ()
    layers = [module for module in model.modules() if isinstance(module, QuantLinear) and module.kernel == "reference"]
    count = sum(native.unlike(layer.frozen, options.device) is None for layer in layers)
    # Asked last, since it may start a compiler.
    why = build.missing() if count else None
    return () if why is None else (f"{count} layers are computed by plain torch, which is slower: {why}",)


def _codes(form: Format, ckpt: Checkpoint, spec: LayerSpec) -> Weight:
    return form.read(ckpt, spec).weight


def _tie_heads(model: nn.Module) -> None:
    for head, embedding in ties(model).items():
        if not embedding.endswith(".weight"):  # biases of masked heads are tied too
            continue
        table = model.get_submodule(embedding.removesuffix(".weight"))
        if isinstance(table, QuantEmbedding):
            put(model, head.removesuffix(".weight"), table.table)


def _quant_linear(old: nn.Module, spec: LayerSpec, parts: Parts, device: torch.device, scratch: Scratch) -> QuantLinear:
    size = (spec.out_features, spec.in_features)
    plain = type(old) is nn.Embedding or embedding_scale(old) is not None
    want = tuple(old.weight.shape) if plain and isinstance(old, nn.Embedding) else sizes(old)
    if want is None:
        raise FormatError(f"{spec.name}: expected a linear layer in the model, found {type(old).__name__}")
    if want != size:
        raise FormatError(f"{spec.name}: expected (out, in) = {want} by config.json, found {size} in the file")
    bias = parts.bias
    has = getattr(old, "bias", None) is not None
    if bias is None and has:
        raise FormatError(f"{spec.name}: expected a tensor 'bias', found none; the file is damaged")
    if bias is not None and not has:
        # Old GPTQ writers store a bias of zeros for every layer, even if the architecture has none.
        if bool(bias.any()):
            raise FormatError(f"{spec.name}.bias: expected no bias or one of zeros by config.json, found other values")
        bias = None
    live = tuple(tensor.to(device=device, dtype=torch.float32) for tensor in parts.live)
    # The bias stays in float32 on every device: it is small, and it may be trained.
    moved = None if bias is None else bias.to(device=device, dtype=torch.float32)
    return QuantLinear(Parts(parts.weight.to(device), live, moved, parts.arrange), spec.live, scratch)
