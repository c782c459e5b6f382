"""The model families forq builds; a new one is a new row, and the tests of loading run over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forq.core import FormatError


@dataclass(frozen=True, slots=True)
class Family:
    """What loading needs to know about an architecture beyond its configuration.

    Attributes:
        blocks: prefix of the decoder blocks' tensors; quantizing touches the linear layers below it.
        base: prefix that checkpoints of the bare decoder leave out.
        ignored: endings of tensors old files carry and the model computes itself.
    """

    blocks: str
    base: str
    ignored: tuple[str, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "llama": Family(blocks="model.layers.", base="model.", ignored=("rotary_emb.inv_freq",)),
    "opt": Family(blocks="model.decoder.layers.", base="model."),
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The row for a config.json.

    Raises:
        FormatError: no such model_type is known; the message names those that are.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise FormatError(f"config.json: expected a model_type among {', '.join(FAMILIES)}, found {kind!r}")
    return FAMILIES[kind]
