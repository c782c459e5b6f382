"""From a checkpoint folder to a model whose scales are live: every tensor accounted for, codes packed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import get_args

import torch
from torch import nn

from forq.checkpoints import Checkpoint
from forq.checkpoints.checkpoint import read_json
from forq.checkpoints.patch import unread
from forq.devices import triton_for
from forq.errors import ConfigError, FormatError
from forq.layers import heap
from forq.layers.embedding import QuantEmbedding
from forq.layers.kernels import int8, ort
from forq.layers.layer import LayerSpec, Parts
from forq.layers.linear import Activations, Choice, QuantLinear
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight, Weight
from forq.models import parts as layer_parts
from forq.models.adapters import peft
from forq.models.families import family_of
from forq.models.floats import fill_floats
from forq.models.graph import model as graph
from forq.models.graph.inputs import Inputs, logits_of
from forq.models.names import FileNames, NoNames, ties
from forq.models.skeleton import amplify, compute_buffers, put, sizes, skeleton, stretch
from forq.plugins import registry


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What a checkpoint describes, before a tensor of it is read.

    Attributes:
        form: the format of its quantized layers, or None where all is float.
        specs: those layers, by module name.
        model: the architecture, every tensor on the meta device.
        names: which tensor fills which place.
    """

    form: ModuleType | None
    specs: dict[str, LayerSpec]
    model: nn.Module
    names: FileNames | NoNames


def layout(ckpt: Checkpoint, dtype: torch.dtype = torch.float32) -> Layout:
    """Put a checkpoint's headers beside the model its configuration describes.

    Raises:
        FormatError: the checkpoint is of no known format or family, or holds a tensor too many or too few.
    """
    if "graph" in ckpt.contents.values:
        return _graph_layout(ckpt)
    family = family_of(ckpt.config)
    depth = ckpt.config.get("num_hidden_layers", ckpt.config.get("num_layers"))
    if isinstance(depth, int) and depth > len(ckpt.info):
        # Building the skeleton of a damaged configuration must not take hours.
        raise FormatError(f"config.json: expected a tensor or more for each of {depth} layers, found {len(ckpt.info)}")
    form = recognised(ckpt)
    specs: dict[str, LayerSpec] = {} if form is None else form.layers(ckpt)
    model = skeleton(ckpt.config, dtype)
    return Layout(form, specs, model, FileNames(ckpt, family, model, specs))


def load(
    source: str | Path | Checkpoint,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    kernel: Choice = "auto",
    adapter: str | Path | None = None,
    activations: Activations = "float",
) -> nn.Module:
    """Build the transformers model of a checkpoint, in eval mode and without gradients.

    Quantized layers become :class:`~forq.layers.linear.QuantLinear`, other linear layers and embeddings
    :class:`~forq.layers.dense.DenseLinear` and :class:`~forq.layers.dense.DenseEmbedding`. The model carries
    ``checkpoint`` (where it came from), ``file_names`` (from parameter names to the checkpoint's) and ``unlike`` (what
    the format's owner computes and forq does not, and what lies beside it untuned, a sentence each).

    Args:
        source: a folder, a hub id, or a checkpoint already open.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, or ``cuda:N``.
        dtype: of activations and float weights; float32 on a CPU by default, the checkpoint's own on a GPU.
        kernel: of the quantized layers: ``ort`` (ONNX Runtime), ``triton`` (on a GPU), ``reference`` (plain torch), or
            ``auto``: the fastest that fits.
        activations: ``int8``: rounded to 8 bits in front of layers of 8 bits with one scale a row; it is faster.
        adapter: a folder with a LoRA adapter as PEFT keeps it, shown beside the layers.

    Raises:
        FormatError: the checkpoint is damaged, of no known format or family, or holds a tensor too many or
            too few.
        ConfigError: the device is unknown, or not here; the kernel is unknown, or cannot compute a layer.
    """
    if kernel not in get_args(Choice):
        raise ConfigError(f"--kernel: expected one of {', '.join(get_args(Choice))}, found {kernel!r}")
    if activations not in get_args(Activations):
        raise ConfigError(f"--activations: expected one of {', '.join(get_args(Activations))}, found {activations!r}")
    place = _device(device)
    if kernel == "triton" and not triton_for(place.type):
        raise ConfigError(f"--kernel triton: expected a GPU and the package triton, found {place.type}; take auto")
    ckpt = source if isinstance(source, Checkpoint) else Checkpoint.open(source)
    kind = dtype or _default_dtype(ckpt, place)
    if "graph" in ckpt.contents.values:
        graph.refuse(place, dtype, kernel, activations, adapter)
        return _graph(ckpt)
    found = layout(ckpt, kind)
    model, names = found.model, found.names
    assert isinstance(names, FileNames)
    compute_buffers(model, place)
    if (factors := ckpt.contents.values.get("rope_factors")) is not None:
        stretch(model, ckpt.read(factors))
    if (magnitude := ckpt.contents.values.get("rope_magnitude")) is not None:
        amplify(model, magnitude)
    scratch = Scratch()
    if found.form is not None:
        for spec in found.specs.values():
            where = names.module_of(spec)
            parts = layer_parts.read(found.form, ckpt, spec)
            old = model.get_submodule(where)
            layer = _quant_linear(old, spec, parts, place, scratch)
            embeds = isinstance(old, nn.Embedding)
            put(model, where, QuantEmbedding(layer, kind) if embeds else layer)
            if spec.zeros is not None:
                layer.zero_points = found.form.zero_points(ckpt, spec)
            if hasattr(found.form, "filed_codes"):
                layer.filed_codes = found.form.filed_codes(ckpt, spec)
            fits = isinstance(layer.frozen, QuantWeight) and triton_for(place.type)
            layer.fused = fits and kernel in ("auto", "triton")
            if activations == "int8" and int8.unfit(layer.frozen, place, kind) is None:
                del parts
                layer.use(int8.Kernel, partial(_codes, found.form, ckpt, spec))
                heap.trim()
                continue
            why = "" if kernel in ("reference", "triton") or embeds else ort.unfit(layer.frozen, place, kind)
            if kernel == "ort" and why and not embeds:
                raise ConfigError(f"--kernel ort: {spec.name}: {why}; take auto or reference")
            if why is None:
                del parts  # the runtime has packed them anew
                layer.use(ort.Kernel, partial(_codes, found.form, ckpt, spec))
                heap.trim()
        for head, embedding in ties(model).items():
            if not embedding.endswith(".weight"):  # biases of masked heads are tied too
                continue
            table = model.get_submodule(embedding.removesuffix(".weight"))
            if isinstance(table, QuantEmbedding):
                put(model, head.removesuffix(".weight"), table.table)
    if activations == "int8" and "int8" not in kernels(model):
        raise ConfigError(
            "--activations int8: expected layers of 8 bits with one scale a row, symmetric, in float32 on a CPU; "
            "found none (forq quantize --bits 8 --group-size -1 makes them)"
        )
    fill_floats(model, ckpt, names.file_of, place, kind, scratch)

    model.eval().requires_grad_(False)
    # Plain attributes: the model must not take them for sub-modules or parameters of its own.
    object.__setattr__(model, "checkpoint", ckpt)
    object.__setattr__(model, "file_names", names.file_of)
    object.__setattr__(model, "unlike", unlike(found.form, ckpt, activations))
    _generation_settings(model, ckpt)
    if adapter is not None:
        peft.read(model, Path(adapter))
    return model


def _graph_layout(ckpt: Checkpoint) -> Layout:
    """The layout of a checkpoint that is a graph: its quantized layers, and no architecture to fill.

    Raises:
        FormatError: no layer is quantized, or the graph is no causal language model.
    """
    form = recognised(ckpt)
    if form is None:
        raise FormatError(
            f"{ckpt.path}: expected MatMulNBits nodes in the graph, found none: quantize it with onnxruntime's "
            "MatMulNBitsQuantizer, or tune the safetensors it was exported from"
        )
    Inputs.of(ckpt), logits_of(ckpt)  # what a load refuses is refused before anything is read
    return Layout(form, form.layers(ckpt), nn.Module(), NoNames())


def _graph(ckpt: Checkpoint) -> nn.Module:
    found = _graph_layout(ckpt)
    assert found.form is not None
    model = graph.GraphLM(ckpt, found.form, found.specs).eval().requires_grad_(False)
    heap.trim()
    model.checkpoint, model.file_names, model.unlike = ckpt, {}, unlike(found.form, ckpt)
    return model


def unlike(form: ModuleType | None, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """What a format's owner computes with a checkpoint and forq does not, and what lies beside it; a sentence each."""
    told: tuple[str, ...] = form.unlike(ckpt, activations) if hasattr(form, "unlike") else ()  # type: ignore[union-attr]
    if not (others := unread(ckpt.folder, ckpt.contents)):
        return told
    return (
        *told,
        f"forq does not read the weights {', '.join(others)} beside it: a save that patches copies them untuned",
    )


def kernels(model: nn.Module) -> dict[str, list[str]]:
    """The quantized layers of a model by the kernel that computes them, as names of their scales."""
    found: dict[str, list[str]] = {}
    for module in model.modules():
        if isinstance(module, QuantLinear):
            found.setdefault(module.kernel, []).append(module.leaf_name)
    return found


def recognised(ckpt: Checkpoint) -> ModuleType | None:
    """The format of a checkpoint's quantized layers, or None where every tensor is float.

    Raises:
        FormatError: the configuration says quantized, and no format knows the tensors.
    """
    known = registry.names("formats")
    for name in known:
        form: ModuleType = registry.get("formats", name)
        if form.recognise(ckpt):
            return form
    said = ckpt.config.get("quantization_config")
    if said is not None:
        method = said.get("quant_method") if isinstance(said, dict) else said
        raise FormatError(
            f"{ckpt.path}: expected a format among {', '.join(known)}; found quant_method {method!r} with "
            "tensors none of them recognises"
        )
    return None


def _codes(form: ModuleType, ckpt: Checkpoint, spec: LayerSpec) -> Weight:
    parts: Parts = form.read(ckpt, spec)
    return parts.weight


def _quant_linear(old: nn.Module, spec: LayerSpec, parts: Parts, device: torch.device, scratch: Scratch) -> QuantLinear:
    found = (spec.out_features, spec.in_features)
    want = tuple(old.weight.shape) if type(old) is nn.Embedding else sizes(old)
    if want is None:
        raise FormatError(f"{spec.name}: expected a linear layer in the model, found {type(old).__name__}")
    if want != found:
        raise FormatError(f"{spec.name}: expected (out, in) = {want} by config.json, found {found} in the file")
    bias = parts.bias
    has = getattr(old, "bias", None) is not None
    if bias is None and has:
        raise FormatError(f"{spec.name}: expected a tensor 'bias', found none; the file is damaged")
    if bias is not None and not has:
        # Old GPTQ writers give every layer a bias of zeros, whether the architecture has one or not.
        if bool(bias.any()):
            raise FormatError(f"{spec.name}.bias: expected no bias or one of zeros by config.json, found other values")
        bias = None
    live = tuple(tensor.to(device=device, dtype=torch.float32) for tensor in parts.live)
    # The bias stays in float32 on every device: it is small, and it may be trained.
    moved = None if bias is None else bias.to(device=device, dtype=torch.float32)
    return QuantLinear(Parts(parts.weight.to(device), live, moved, parts.arrange), spec.live, scratch)


def _device(wanted: str | torch.device) -> torch.device:
    said = str(wanted)
    if said == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = re.fullmatch(r"cpu|cuda(?::([0-9]{1,3}))?", said)
    if known is None:
        raise ConfigError(f"--device: expected auto, cpu, cuda or cuda:N, found {said!r}")
    if said != "cpu":
        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if here == 0:
            raise ConfigError(f"--device: expected a GPU for {said!r}, found no GPU here; use --device cpu")
        if int(known[1] or 0) >= here:
            raise ConfigError(f"--device: expected cuda:0 … cuda:{here - 1}, the GPUs that are here, found {said!r}")
    return torch.device(said)


def _default_dtype(ckpt: Checkpoint, device: torch.device) -> torch.dtype:
    """float32 on a CPU; elsewhere what the configuration says the weights are in."""
    said = ckpt.config.get("dtype") or ckpt.config.get("torch_dtype") or "float16"
    kind = getattr(torch, said.removeprefix("torch."), None) if isinstance(said, str) else None
    if not isinstance(kind, torch.dtype):
        # transformers reads the same field for the tokenizer, and ends in an AttributeError of torch.
        raise FormatError(f"config.json: expected a dtype of torch, found {said!r}")
    if device.type == "cpu":
        return torch.float32
    return kind if kind in (torch.float16, torch.bfloat16, torch.float32) else torch.float16


def _generation_settings(model: nn.Module, ckpt: Checkpoint) -> None:
    path = ckpt.folder / "generation_config.json"
    if path.is_file():
        from transformers import GenerationConfig

        try:
            model.generation_config = GenerationConfig.from_dict(read_json(path))
        except FormatError:
            raise
        except Exception as error:  # whatever a bad value ends in, somewhere inside transformers
            raise FormatError(f"{path}: expected settings transformers can read, found {_short(error)}") from error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
