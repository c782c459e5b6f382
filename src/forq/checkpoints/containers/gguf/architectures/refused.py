"""Architectures that llama.cpp computes and forq does not, with the reason that a refusal states."""

from __future__ import annotations

from collections.abc import Mapping

_EXPERTS = "a mixture of experts: its matrices are stacked in three-dimensional tensors, which no layer here computes"
_STATE = "a state-space or recurrent model: its layers keep a state that no test here covers"
_IMAGES = "a model of images and text: only models of text alone are read"
_HALVES = "an encoder-decoder: only decoders and encoders are read"
_MASKS = "a model that fills in masked tokens in turns (text diffusion): no task here trains that"
_ENCODER = "an encoder other than BERT: no entry describes it"

_BY_REASON: Mapping[str, tuple[str, ...]] = {
    _EXPERTS: (
        *("afmoe", "arctic", "bailingmoe", "bailingmoe2", "dbrx", "deepseek", "deepseek2", "dots1", "ernie4_5-moe"),
        *("exaone-moe", "glm-dsa", "glm4moe", "gpt-oss", "granitemoe", "grok", "grovemoe", "hunyuan-moe", "llada-moe"),
        *("llama4", "mimo2", "minimax-m2", "mistral4", "nomic-bert-moe", "olmoe", "phimoe", "qwen2moe", "qwen3moe"),
        *("rnd1", "smallthinker", "step35", "qwen3vlmoe", "deepseek2-ocr"),
    ),
    _STATE: (
        *("arwkv7", "falcon-h1", "granitehybrid", "jamba", "kimi-linear", "lfm2", "lfm2moe", "mamba", "mamba2"),
        *("nemotron_h", "nemotron_h_moe", "plamo2", "qwen35", "qwen35moe", "qwen3next", "rwkv6", "rwkv6qwen2", "rwkv7"),
    ),
    _IMAGES: ("chameleon", "cogvlm", "hunyuan_vl", "paddleocr", "qwen2vl", "qwen3vl"),
    "the part of a model that reads images or sound: name the model of text beside it": ("clip",),
    "a part of a model of speech, which predicts no tokens": ("wavtokenizer-dec",),
    _HALVES: ("t5", "t5encoder"),
    _MASKS: ("dream", "llada"),
    _ENCODER: (
        *("eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llama-embed", "modern-bert", "neo-bert"),
        "nomic-bert",
    ),
    "an adapter or a draft of another model, which predicts nothing alone": ("eagle3",),
}

REFUSED: Mapping[str, str] = {name: reason for reason, names in _BY_REASON.items() for name in names}
"""The reason by the value of general.architecture."""
