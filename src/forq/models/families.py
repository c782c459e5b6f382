"""The model families forq builds; a new one is a new row, and the tests of loading run over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from forq.core import FormatError, Kind


@dataclass(frozen=True, slots=True)
class Family:
    """What loading needs to know about an architecture beyond its configuration.

    Attributes:
        blocks: prefix of the blocks' tensors; quantizing touches the linear layers below it.
        base: prefix that checkpoints of the bare model leave out.
        ignored: endings of tensors a file may carry that the model computes itself, or that belong to a head or
            pooler it does not have here. They never move, and are saved as they are.
        kind: of the model that is built.
        spelled: what files of old call an ending of a name, and what it is called now.
    """

    blocks: str
    base: str
    ignored: tuple[str, ...] = ()
    kind: Kind = "causal"
    spelled: tuple[tuple[str, str], ...] = ()

    def place(self, name: str) -> str:
        """A tensor's name as the model spells it."""
        for old, new in self.spelled:
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name


def _encoder(base: str, blocks: str = "encoder.layer.") -> Family:
    """A family of encoders; sentence vectors are means over tokens, so the pooler is not built."""
    return Family(
        blocks=base + blocks,
        base=base,
        ignored=(
            "embeddings.position_ids",
            "pooler.dense.weight",
            "pooler.dense.bias",
            "cls.seq_relationship.weight",
            "cls.seq_relationship.bias",
        ),
        kind="masked",
        spelled=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    )


FAMILIES: Mapping[str, Family] = {
    "llama": Family(blocks="model.layers.", base="model.", ignored=("rotary_emb.inv_freq",)),
    "opt": Family(blocks="model.decoder.layers.", base="model."),
    "bert": _encoder("bert."),
    "roberta": _encoder("roberta."),
    "xlm-roberta": _encoder("roberta."),
    "mpnet": _encoder("mpnet."),
    "distilbert": _encoder("distilbert.", "transformer.layer."),
}

# The heads a row of encoders is built with: ForPreTraining is the masked one and another beside it, left out.
_MASKED = ("ForMaskedLM", "ForPreTraining")


def family_of(config: Mapping[str, Any]) -> Family:
    """The row for a config.json; of an encoder, the bare one where ``architectures`` names no masked head.

    Raises:
        FormatError: no such model_type is known, the message names those that are; or an encoder with a head
            that forq does not build.
    """
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise FormatError(f"config.json: expected a model_type among {', '.join(FAMILIES)}, found {name!r}")
    family = FAMILIES[name]
    if family.kind == "causal":
        return family
    said = config.get("architectures") or ["Model"]
    head = str(said[0]) if isinstance(said, list) else str(said)
    if head.endswith(_MASKED):
        return family
    if head.endswith("Model"):
        return replace(family, blocks=family.blocks.removeprefix(family.base), base="", kind="encoder")
    raise FormatError(
        f"config.json: expected architectures of an encoder to end in Model, {' or '.join(_MASKED)}, found {head!r}; "
        "classify by label sentences or by a mask: a classifier of its own is not supported"
    )
