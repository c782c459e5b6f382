"""Tiny random encoders and their checkpoints, written by transformers itself, with a tokenizer beside them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEXT = "line film number says is good bad It was great terrible a movie the story yes no maybe . , ? #"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_SIZES |= {"intermediate_size": 48, "max_position_embeddings": 66}
KINDS: dict[str, dict[str, Any]] = {
    "bert": _SIZES,
    "roberta": _SIZES | {"pad_token_id": 0, "type_vocab_size": 1},
    "xlm-roberta": _SIZES | {"pad_token_id": 0, "type_vocab_size": 1},
    "mpnet": _SIZES | {"pad_token_id": 1},
    "distilbert": {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    | {"max_position_embeddings": 66},
}


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words and digits, framed by [CLS] and [SEP]."""
    digits = [str(digit) for digit in range(10)]
    known = {word: index for index, word in enumerate([*SPECIAL, *TEXT.split(), *digits])}
    made = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", known["[CLS]"]), ("[SEP]", known["[SEP]"])]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


@functools.cache
def pairs() -> PreTrainedTokenizerFast:
    """The same, which also frames two texts and gives the second another type."""
    own = tokenizer.__wrapped__()
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    names = {name: getattr(own, name) for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")}
    made = PreTrainedTokenizerFast(tokenizer_object=own.backend_tokenizer, model_input_names=inputs, **names)
    ids = {name: made.convert_tokens_to_ids(name) for name in ("[CLS]", "[SEP]")}
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=list(ids.items())
    )
    return made


def model(kind: str = "bert", *, masked: bool = False, seed: int = 0) -> Any:
    """A random encoder whose every tensor matters."""
    config = transformers.AutoConfig.for_model(kind, **KINDS[kind])
    torch.manual_seed(seed)
    maker = transformers.AutoModelForMaskedLM if masked else transformers.AutoModel
    made = maker.from_config(config).eval()
    with torch.no_grad():
        for value in made.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
            else:
                value.mul_(8)
    return made


def folder(where: Path, kind: str = "bert", *, masked: bool = False) -> Path:
    """The float checkpoint of :func:`model`."""
    transformers.utils.logging.disable_progress_bar()
    model(kind, masked=masked).save_pretrained(where)
    tokenizer().save_pretrained(where)
    return where
