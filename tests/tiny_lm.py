"""Tiny random language models and tokenizers, made in the test."""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

WORDS = "line film number says is good bad It was great terrible 0 1 2 3 4 5 6 7 8 9 ."


@functools.cache
def tokenizer(bos: bool = True, vocabulary: int = 300) -> PreTrainedTokenizerFast:
    """A byte-level BPE; at 300 entries " great" is several tokens, at 400 it is one."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([WORDS], trainer)
    if bos:
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def model(kind: str = "llama", attention: str = "sdpa", seed: int = 0, **settings: Any) -> Any:
    """Two layers of width 32 with large random weights, so that every token matters."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 400}
    sizes |= {"max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
    wide = {"intermediate_size": 48, "num_key_value_heads": 2}
    wide |= {"head_dim": 8} if kind == "qwen3" else {}
    shape = {"ffn_dim": 48, "word_embed_proj_dim": 32} if kind == "opt" else wide
    config = transformers.AutoConfig.for_model(kind, **(sizes | shape | settings))
    torch.manual_seed(seed)
    made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.mul_(1 if value.ndim == 1 else 6)
    return made
