"""A model without weights: transformers' architecture on the meta device, built from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.models.diffusion import denoiser
from forq.models.families import family_of

# Keys on how to read the files or which remote code to run; the architecture does not depend on them.
_NOT_ARCHITECTURE = ("quantization_config", "auto_map", "torch_dtype", "dtype")


class Initialised(Protocol):
    """transformers' ``PreTrainedModel``; initialising a module also computes its buffers."""

    def _init_weights(self, module: nn.Module) -> None: ...


def skeleton(config: Mapping[str, object], dtype: torch.dtype) -> nn.Module:
    """The model of a configuration's family, every tensor on the meta device; remote code is never run.

    Args:
        config: a config.json of a known family.
        dtype: dtype of the parameters.

    Raises:
        FormatError: transformers refuses the configuration.
    """
    if (family := family_of(config)).kind == "diffusion":
        return denoiser.skeleton(config, dtype)
    import transformers

    makers = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM", "encoder": "AutoModel"}
    makers |= {"classifier": "AutoModelForSequenceClassification"}
    # AutoModel would build both halves of an encoder-decoder.
    maker = getattr(transformers, "AutoModelForTextEncoding" if family.half else makers[family.kind])
    try:
        settings = configuration(config)
        with torch.device("meta"):
            model: nn.Module = maker.from_config(settings, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # an impossible value can fail in any way inside transformers or torch
        raise FormatError(f"config.json: expected a configuration transformers can build, found {error}") from error
    if getattr(model, "pooler", None) is not None:
        put(model, "pooler", None)  # nothing reads its output
    return model


def configuration(config: Mapping[str, object]) -> Any:
    """A config.json as transformers' configuration of its architecture."""
    import transformers

    plain = {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
    return type(transformers.AutoConfig.for_model(plain["model_type"])).from_dict(plain)


def compute_buffers(model: nn.Module, device: torch.device) -> None:
    """Compute the buffers that no file stores: rotary frequencies, causal masks, embedding factors.

    transformers computes them when it initialises a module. Parameters must still be on the meta
    device, where initialising them costs nothing and changes nothing.

    Raises:
        FormatError: transformers does not compute one of the buffers.
    """
    lm = cast(Initialised, model)
    for name, module in model.named_modules():
        owned = sorted(own for own in module._non_persistent_buffers_set if getattr(module, own) is not None)
        if not owned:
            continue
        computed = []
        # A buffer that comes out the same from two different fill values was computed completely.
        for fill in (0, 1):
            for own in owned:
                meta = module.get_buffer(own)
                # Computed on the CPU and then moved: pow and sin of another device may differ in the last bit.
                setattr(module, own, torch.full(meta.shape, fill, dtype=meta.dtype, device="cpu"))
            with torch.no_grad():
                lm._init_weights(module)
            computed.append([module.get_buffer(own) for own in owned])
        for own, first, second in zip(owned, *computed, strict=True):
            if not torch.equal(first, second):
                raise FormatError(f"{name}.{own}: expected a buffer that transformers computes, found one it leaves")
            setattr(module, own, second.to(device))


def scale_rotary(model: nn.Module, ckpt: Checkpoint) -> None:
    """Apply the rotary scaling of a GGUF file: factors of the frequencies, and a magnitude.

    Raises:
        FormatError: the numbers of factors and frequencies differ, or a factor is not positive.
    """
    if (name := ckpt.contents.values.get("rope_factors")) is not None:
        _divide_frequencies(model, ckpt.read(name))
    if (magnitude := ckpt.contents.values.get("rope_magnitude")) is not None:
        local = ckpt.contents.values["rope_magnitude_local"]
        for module in model.modules():
            # Plain numbers that multiply cosine and sine, in addition to the scaling of the frequencies; some models
            # have one for each kind of block.
            for name in [name for name in vars(module) if name.endswith("attention_scaling")]:
                if local or not name.startswith("sliding_attention"):
                    vars(module)[name] *= magnitude


def _divide_frequencies(model: nn.Module, factors: Tensor) -> None:
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            if factors.shape != buffer.shape or not bool((factors > 0).all()):
                raise FormatError(
                    f"{name}: expected {tuple(buffer.shape)} positive factors, found {tuple(factors.shape)}"
                )
            buffer.div_(factors.to(buffer.device))


def blocks(model: nn.Module) -> list[str]:
    """Names of the modules inside a model's blocks, which are the members of its module lists."""
    lists = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    return [name for name, _ in model.named_modules() if name.startswith(lists)]


def base(model: nn.Module) -> str:
    """The prefix that checkpoints of the bare model leave out of a name."""
    prefix = getattr(model, "base_model_prefix", "")
    return f"{prefix}." if prefix else ""


def sizes(module: nn.Module) -> tuple[int, int] | None:
    """(out, in) of a layer that can be quantized, or None; GPT-2's Conv1D counts as a transposed linear layer."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if turned(module):
        return int(module.nf), int(module.nx)  # type: ignore[arg-type]
    return None


def embedding_scale(module: nn.Module) -> torch.Tensor | float | None:
    """The factor of a scaled embedding (Gemma's class); None for other modules."""
    scaled = isinstance(module, nn.Embedding) and type(module).__name__.endswith("ScaledWordEmbedding")
    return getattr(module, "embed_scale", None) if scaled else None


def turned(module: nn.Module) -> bool:
    """Whether a layer stores its float weight transposed, as (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def put(model: nn.Module, name: str, module: nn.Module | None) -> None:
    """Set the sub-module called ``name``; ``None`` removes it."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
