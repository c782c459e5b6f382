"""From a checkpoint folder to a model whose scales are live: every tensor accounted for, codes packed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from forq import registry
from forq.core import FormatError
from forq.formats.checkpoint import Checkpoint
from forq.formats.checkpoint.folder import read_json
from forq.models.families import family_of
from forq.models.floats import fill_floats
from forq.models.names import FileNames
from forq.models.skeleton import put, rebuild_computed, skeleton
from forq.quant.layer import LayerSpec, Parts
from forq.quant.linear import QuantLinear
from forq.quant.scratch import Scratch


def load(
    source: str | Path | Checkpoint, device: str | torch.device = "auto", dtype: torch.dtype | None = None
) -> nn.Module:
    """Build the transformers model of a checkpoint, in eval mode and without gradients.

    Quantized layers become :class:`~forq.quant.linear.QuantLinear`, other linear layers and embeddings
    :class:`~forq.quant.dense.DenseLinear` and :class:`~forq.quant.dense.DenseEmbedding`. The model carries
    ``checkpoint`` (where it came from) and ``file_names`` (from parameter names to the checkpoint's).

    Args:
        source: a folder, a hub id, or a checkpoint already open.
        device: ``auto`` is a GPU where there is one.
        dtype: of activations and float weights; float32 on a CPU by default, the checkpoint's own on a GPU.

    Raises:
        FormatError: the checkpoint is damaged, of no known format or family, or holds a tensor too many or
            too few.
    """
    ckpt = source if isinstance(source, Checkpoint) else Checkpoint.open(source)
    family = family_of(ckpt.config)
    depth = ckpt.config.get("num_hidden_layers")
    if isinstance(depth, int) and depth > len(ckpt.info):
        # Building the skeleton of a damaged configuration must not take hours.
        raise FormatError(f"config.json: expected a tensor or more for each of {depth} layers, found {len(ckpt.info)}")
    place = _device(device)
    kind = dtype or _default_dtype(ckpt, place)
    form = recognised(ckpt)
    specs: dict[str, LayerSpec] = {} if form is None else form.layers(ckpt)

    model = skeleton(ckpt.config, kind)
    names = FileNames(ckpt, family, model, specs)
    scratch = Scratch()
    if form is not None:
        for spec in specs.values():
            where = names.module_of(spec)
            parts = form.read(ckpt, spec)
            put(model, where, _quant_linear(model.get_submodule(where), spec, parts, place, scratch))
    fill_floats(model, ckpt, names.file_of, place, kind, scratch)
    rebuild_computed(model, place)

    model.eval().requires_grad_(False)
    # Plain attributes: the model must not take them for sub-modules or parameters of its own.
    object.__setattr__(model, "checkpoint", ckpt)
    object.__setattr__(model, "file_names", names.file_of)
    _generation_settings(model, ckpt)
    return model


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


def _quant_linear(old: nn.Module, spec: LayerSpec, parts: Parts, device: torch.device, scratch: Scratch) -> QuantLinear:
    found = (spec.out_features, spec.in_features)
    if not isinstance(old, nn.Linear):
        raise FormatError(f"{spec.name}: expected a linear layer in the model, found {type(old).__name__}")
    if (old.out_features, old.in_features) != found:
        want = (old.out_features, old.in_features)
        raise FormatError(f"{spec.name}: expected (out, in) = {want} by config.json, found {found} in the file")
    bias = parts.bias
    if bias is None and old.bias is not None:
        raise FormatError(f"{spec.name}: expected a tensor 'bias', found none; the file is damaged")
    if bias is not None and old.bias is None:
        # Old GPTQ writers give every layer a bias of zeros, whether the architecture has one or not.
        if bool(bias.any()):
            raise FormatError(f"{spec.name}.bias: expected no bias or one of zeros by config.json, found other values")
        bias = None
    scales = parts.scales.to(device=device, dtype=torch.float32)
    # The bias stays in float32 on every device: it is small, and it may be trained.
    moved = None if bias is None else bias.to(device=device, dtype=torch.float32)
    return QuantLinear(parts.weight.to(device), scales, moved, spec.scales, spec.scales_dtype, scratch)


def _device(wanted: str | torch.device) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def _default_dtype(ckpt: Checkpoint, device: torch.device) -> torch.dtype:
    """float32 on a CPU; elsewhere what the configuration says the weights are in."""
    if device.type == "cpu":
        return torch.float32
    said = ckpt.config.get("dtype") or ckpt.config.get("torch_dtype")
    kinds = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    return kinds.get(str(said).removeprefix("torch."), torch.float16)


def _generation_settings(model: nn.Module, ckpt: Checkpoint) -> None:
    if (ckpt.path / "generation_config.json").is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_dict(read_json(ckpt.path / "generation_config.json"))
