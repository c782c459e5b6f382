"""The linear layers that other libraries find in a rewritten folder, to list those that they must not quantize."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from forq.models.skeleton import base, configuration, sizes, skeleton


def left_in_float(config: Mapping[str, object], quantized: Iterable[str]) -> list[str]:
    """Names of the linear layers, Conv1D included, that are not quantized, as transformers names them.

    Listed are those of the model that forq builds and of the class that ``architectures`` names, in this order. The
    latter may have more: a pooler or a second head, whose matrices are in the file and stay in float.

    Args:
        config: a config.json.
        quantized: names of the quantized layers, with or without the prefix of the base model.
    """
    quantized, found = [*quantized], dict[str, None]()
    for model in (skeleton(config, torch.float32), _named(config)):
        if model is not None:
            prefix = base(model)
            inside = {name.removeprefix(prefix) for name in quantized}
            linear = (name for name, module in model.named_modules() if sizes(module) is not None)
            found |= dict.fromkeys(name for name in linear if name.removeprefix(prefix) not in inside)
    return [*found]


def _named(config: Mapping[str, object]) -> nn.Module | None:
    """The model of the class that ``architectures`` names, or the bare one, on the meta device."""
    import transformers

    names = config.get("architectures") or [""]
    maker = getattr(transformers, str(names[0] if isinstance(names, list) else names), None)
    try:
        settings = configuration(config)
        with torch.device("meta"):
            if isinstance(maker, type) and issubclass(maker, transformers.PreTrainedModel):
                model: nn.Module = maker(settings)
            else:
                model = transformers.AutoModel.from_config(settings, trust_remote_code=False)
    except Exception:  # whatever transformers raises: it does not build this class from this configuration either
        return None
    return model
