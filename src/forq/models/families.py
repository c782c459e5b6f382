"""The model families forq builds. A new decoder is a new entry here; the tests of loading run over all entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from forq.checkpoints.containers.onnx.images import reads_images
from forq.checkpoints.contents import Contents
from forq.errors import ConfigError, FormatError
from forq.plugins import registry
from forq.tokens.model import Kind


@dataclass(frozen=True, slots=True)
class Family:
    """What loading needs to know about an architecture beyond its configuration and its class.

    transformers' class holds the rest: the prefix that files of a bare model leave out, the tied
    tensors and the blocks.

    Attributes:
        ignored: endings of tensor names to skip where the model has no place for them. It computes these
            tensors itself, or they belong to a head or pooler that is not built. They never move and are
            saved unchanged.
        kind: kind of the model that is built.
        spelled: pairs of name endings: the ending in old files, and today's.
        half: whether only the encoder of an encoder-decoder is built.
    """

    ignored: tuple[str, ...] = ()
    kind: Kind = "causal"
    spelled: tuple[tuple[str, str], ...] = ()
    half: bool = False

    def place(self, name: str) -> str:
        """The model's name for a tensor of the file."""
        for old, new in self.spelled:
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name


# Divisors of rotary frequencies in GGUF files: the short ones are read on their own, the long ones never.
_ROPE_FACTORS = ("rope_factors_short.weight", "rope_factors_long.weight")
# Older versions of transformers saved rotary frequencies and causal masks.
_DECODER = Family(ignored=("rotary_emb.inv_freq", "rope_freqs.weight", *_ROPE_FACTORS))
_MASK_BESIDE = Family(ignored=(".attn.bias", ".attn.masked_bias"))
# Without a head the pooler is not built: a sentence vector is the mean over its tokens.
_ENCODER = Family(
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
    "llama": _DECODER,
    "mistral": _DECODER,
    "ministral3": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "gemma": _DECODER,
    "gemma2": _DECODER,
    "gemma3_text": _DECODER,
    "phi": _DECODER,
    "phi3": _DECODER,
    "stablelm": _DECODER,
    "olmo": _DECODER,
    "olmo2": _DECODER,
    "olmo3": _DECODER,
    "granite": _DECODER,
    "smollm3": _DECODER,
    "cohere": _DECODER,
    "cohere2": _DECODER,
    "starcoder2": _DECODER,
    "glm": _DECODER,
    "glm4": _DECODER,
    "helium": _DECODER,
    "nemotron": _DECODER,
    "arcee": _DECODER,
    "seed_oss": _DECODER,
    "hunyuan_v1_dense": _DECODER,
    "exaone4": _DECODER,
    "ernie4_5": _DECODER,
    "opt": _DECODER,
    "bloom": _DECODER,
    "falcon": _DECODER,
    "mpt": _DECODER,
    "xglm": _DECODER,
    "gpt2": _MASK_BESIDE,
    "gpt_bigcode": _MASK_BESIDE,
    "gptj": _MASK_BESIDE,
    "codegen": Family(ignored=(".attn.causal_mask",)),
    "gpt_neo": Family(ignored=(".attn.attention.bias", ".attn.attention.masked_bias")),
    "gpt_neox": Family(
        ignored=("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
        spelled=(("embed_out.weight", "lm_head.weight"),),
    ),
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "xlm-roberta": _ENCODER,
    "mpnet": _ENCODER,
    "distilbert": _ENCODER,
}

# Denoisers of diffusers, by the class in their config.json; see :mod:`forq.models.diffusion.denoiser`.
DENOISERS: Mapping[str, Family] = {"SD3Transformer2DModel": Family(kind="diffusion")}

# Encoders of an encoder-decoder, by class; diffusion pipelines use them without the decoder.
_HALVES: Mapping[str, Family] = {"T5EncoderModel": Family(kind="encoder", half=True)}

# Models forq does not build: the reason, keys of config.json that reveal them, and names for those without a key.
_REFUSED: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "a mixture of experts: transformers holds its experts in three-dimensional parameters, not in linear layers",
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
        ("mixtral", "dbrx", "gpt_oss", "deepseek_v2", "deepseek_v3"),
    ),
    (
        "a multimodal model: only models of text alone are built",
        ("vision_config", "audio_config", "text_config"),
        ("clip", "llava", "vit"),
    ),
    (
        "a state-space, recurrent or convolutional model: its layers keep a state that no test here covers",
        (
            *("state_size", "ssm_cfg", "ssm_state_size", "mamba_d_state", "lru_width", "conv_L_cache"),
            *("linear_conv_kernel_dim", "attention_hidden_size"),
        ),
        ("mamba", "mamba2", "jamba", "rwkv", "xlstm"),
    ),
    (
        "an encoder-decoder: only decoders and encoders are built",
        ("is_encoder_decoder",),
        ("t5", "mt5", "bart", "whisper"),
    ),
)

# Encoder heads that are built as masked models; ForPreTraining holds a masked head and a second one, left out.
_MASKED = ("ForMaskedLM", "ForPreTraining")
_CLASSIFIER = "ForSequenceClassification"


def kind_of(contents: Contents) -> Kind:
    """The kind of model in a checkpoint; a graph needs no known family.

    Raises:
        FormatError: see :func:`family_of`.
    """
    if contents.graph is None:
        return family_of(contents.config).kind
    return "images" if reads_images(contents.graph) else "causal"


def family_of(config: Mapping[str, object]) -> Family:
    """The family of a config.json; encoders without a head get the bare model.

    Raises:
        FormatError: the architecture is refused (with the reason), the model_type is unknown (the
            message lists the known ones), it attends in another direction than its family, or the
            encoder has a head that forq does not build.
    """
    if (denoiser := config.get("_class_name")) is not None:
        if not isinstance(denoiser, str) or denoiser not in DENOISERS:
            known = ", ".join(DENOISERS)
            raise FormatError(f"config.json: expected a denoiser among {known}, found {denoiser!r:.80}")
        return DENOISERS[denoiser]
    heads = config.get("architectures") or ["Model"]
    head = str(heads[0]) if isinstance(heads, list) else str(heads)
    if head in _HALVES:
        return _HALVES[head]
    name = config.get("model_type")
    for why, keys, names in _REFUSED:
        revealing = next((key for key in keys if config.get(key)), None)
        if revealing is not None or name in names:
            hint = "" if revealing is None else f" ({revealing})"
            raise FormatError(f"config.json: expected a model forq can build, found {name!r}{hint}, {why}")
    if name == "mistral" and "layer_types" in config:
        # transformers turns it into another architecture, whose windows alternate.
        raise FormatError(
            "config.json: expected a model forq can build, found mistral with layer_types, which transformers reads as "
            "ministral"
        )
    if not isinstance(name, str) or name not in FAMILIES:
        near = registry.nearest(str(name), list(FAMILIES))
        raise FormatError(f"config.json: expected a model_type among {', '.join(FAMILIES)}, found {name!r}{near}")
    family = FAMILIES[name]
    _check_attention(config, family)
    if head.endswith(_CLASSIFIER):
        return replace(family, kind="classifier")
    if family.kind == "causal":
        return family
    if head.endswith(_MASKED):
        return family
    if head.endswith("Model"):
        return replace(family, kind="encoder")
    raise FormatError(
        "config.json: expected architectures of an encoder to end in Model, "
        f"{', '.join(_MASKED)} or {_CLASSIFIER}, found {head!r}"
    )


def _check_attention(config: Mapping[str, object], family: Family) -> None:
    """Refuse a decoder that attends to later tokens, and an encoder that does not.

    Raises:
        FormatError: the configuration says so.
    """
    if family.kind == "causal":
        if not config.get("is_causal", True):
            found = "is_causal false"
        elif config.get("use_bidirectional_attention"):
            found = "use_bidirectional_attention true"
        else:
            return
        expected = "a decoder that attends to earlier tokens only"
        hint = "such a model makes sentence vectors and is no language model"
    elif config.get("is_decoder"):
        expected, found = "an encoder that attends in both directions", "is_decoder true"
        hint = "set it to false if the model was trained without it"
    else:
        return
    raise FormatError(f"config.json: expected {expected}, found {found}; {hint}")


def classes_of(config: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the classes of a classification head, in the order of its outputs, as transformers reads them.

    Raises:
        ConfigError: the head has no single class for a text, or its names cannot be read.
    """
    if (problem := config.get("problem_type")) in ("regression", "multi_label_classification"):
        raise ConfigError(f"config.json: expected a head that gives a text one class, found problem_type {problem!r}")
    names, count = config.get("id2label"), config.get("num_labels", 2)
    if isinstance(names, dict) and "num_labels" in config and type(count) is int and count != len(names):
        names = None  # transformers believes the number, and calls the classes by it
    if names is None:
        names = {
            str(place): f"LABEL_{place}" for place in range(count if type(count) is int and count < 1 << 16 else 0)
        }
    by_place = {str(place): str(name) for place, name in names.items()} if isinstance(names, dict) else {}
    if not by_place or any(str(place) not in by_place for place in range(len(by_place))):
        raise ConfigError(f"config.json: expected id2label to name the classes 0, 1, …, found {names!r:.80}")
    return tuple(by_place[str(place)] for place in range(len(by_place)))
