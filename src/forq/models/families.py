"""The model families forq builds; a new one is a new row, and the tests of loading run over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from forq import registry
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


# Decoders whose tensors are named as Llama's are; what is inside a block is transformers' own affair.
_LIKE_LLAMA = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "stablelm",
    "olmo",
    "olmo2",
    "granite",
    "smollm3",
    "cohere",
    "cohere2",
    "starcoder2",
    "glm",
    "helium",
    "nemotron",
    "arcee",
)

FAMILIES: Mapping[str, Family] = {
    **{name: Family("model.layers.", "model.", ignored=("rotary_emb.inv_freq",)) for name in _LIKE_LLAMA},
    "opt": Family(blocks="model.decoder.layers.", base="model."),
    "gpt2": Family("transformer.h.", "transformer.", ignored=(".attn.bias", ".attn.masked_bias")),
    "gpt_neox": Family(
        "gpt_neox.layers.",
        "gpt_neox.",
        ignored=("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
        spelled=(("embed_out.weight", "lm_head.weight"),),
    ),
    "bloom": Family("transformer.h.", "transformer."),
    "falcon": Family("transformer.h.", "transformer."),
    "mpt": Family("transformer.blocks.", "transformer."),
    "bert": _encoder("bert."),
    "roberta": _encoder("roberta."),
    "xlm-roberta": _encoder("roberta."),
    "mpnet": _encoder("mpnet."),
    "distilbert": _encoder("distilbert.", "transformer.layer."),
}

# What a config.json says of architectures whose tensors forq cannot account for yet, by the key that tells.
_REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), "a mixture of experts"),
    (("vision_config", "audio_config", "text_config"), "a multimodal model"),
    (("state_size", "ssm_cfg", "mamba_d_state", "time_mix_extra_dim", "attn_layer_indices"), "a state-space model"),
)
_REFUSED_NAMES = {
    "mixtral": "a mixture of experts",
    "mamba": "a state-space model",
    "mamba2": "a state-space model",
    "jamba": "a state-space model",
    "rwkv": "a state-space model",
    "t5": "an encoder-decoder",
    "bart": "an encoder-decoder",
    "gptj": "a decoder whose attention computes its own positions",
    "gpt_neo": "a decoder whose attention computes its own positions",
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
    what = next((what for keys, what in _REFUSED if any(config.get(key) for key in keys)), None)
    what = _REFUSED_NAMES.get(str(name), what)
    if what is not None and (name not in FAMILIES or what == "a mixture of experts"):
        raise FormatError(
            f"config.json: {name!r} is {what}, which forq does not load yet; known: {', '.join(FAMILIES)}"
        )
    if not isinstance(name, str) or name not in FAMILIES:
        near = registry.nearest(str(name), list(FAMILIES))
        raise FormatError(f"config.json: expected a model_type among {', '.join(FAMILIES)}, found {name!r}{near}")
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
