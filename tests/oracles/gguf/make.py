"""Run in .venv-formats: gguf-py writes tiny random models in its own types, as llama.cpp's converter lays them out.

make.py OUT CASE …   →   OUT/CASE/CASE.gguf for every case named
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import numpy as np
import torch
from blocks import Q, packed
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 96, "num_key_value_heads": 2, "max_position_embeddings": 128}
SIZES |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
WIDE = SIZES | {"hidden_size": 256, "intermediate_size": 512}
CASES = {
    "llama-q4_0": ("llama", SIZES, [Q.Q4_0], False),
    "llama-mixed": ("llama", SIZES, [Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0], False),
    "llama-tied-q8_0": ("llama", SIZES, [Q.Q8_0], True),
    "llama-f16": ("llama", SIZES, [Q.F16], False),
    "llama-bf16": ("llama", SIZES, [Q.BF16], False),
    "qwen2-q5_1": ("qwen2", SIZES, [Q.Q5_1], True),
    "qwen3-q8_0": ("qwen3", SIZES | {"head_dim": 128}, [Q.Q8_0], False),
    "llama-k": ("llama", WIDE, [Q.Q4_K, Q.Q5_K, Q.Q6_K], False),
    "llama-small-k": ("llama", WIDE, [Q.Q2_K, Q.Q3_K], True),
    "llama-iq4": ("llama", WIDE, [Q.IQ4_XS, Q.IQ4_NL], True),
    "llama-iq": ("llama", WIDE, [Q.IQ2_XXS, Q.IQ2_XS, Q.IQ2_S, Q.IQ3_XXS, Q.IQ3_S, Q.IQ1_S, Q.IQ1_M, Q.IQ4_NL], False),
    "llama-ternary": ("llama", WIDE, [Q.TQ1_0, Q.TQ2_0, Q.IQ4_XS], True),
}
PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def name_of(name: str) -> str:
    head, _, own = name.rpartition(".")
    if head.startswith("model.layers."):
        _, _, layer, part = head.split(".", 3)
        return f"blk.{layer}.{PARTS[part]}.{own}"
    return {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[head] + "." + own


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp rotates them."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def tokenizer(writer: gguf.GGUFWriter) -> None:
    """A byte-level BPE of 320 entries, trained on these lines."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([Path(__file__).read_text()], trainer)
    vocab = sorted(bpe.get_vocab().items(), key=lambda item: item[1])
    merges = __import__("json").loads(bpe.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if place < 2 else 1 for _, place in vocab])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="+", choices=sorted(CASES))
    args = parser.parse_args()
    for case in args.cases:
        kind, sizes, types, tied = CASES[case]
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, tie_word_embeddings=tied))
        draw = np.random.default_rng(0)
        (args.out / case).mkdir(parents=True)
        writer = gguf.GGUFWriter(args.out / case / f"{case}.gguf", kind)
        writer.add_block_count(sizes["num_hidden_layers"])
        writer.add_context_length(sizes["max_position_embeddings"])
        writer.add_embedding_length(sizes["hidden_size"])
        writer.add_feed_forward_length(sizes["intermediate_size"])
        writer.add_head_count(sizes["num_attention_heads"])
        writer.add_head_count_kv(sizes["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(sizes["vocab_size"])
        if "head_dim" in sizes:
            writer.add_key_length(sizes["head_dim"])
            writer.add_value_length(sizes["head_dim"])
        tokenizer(writer)
        turn = 0
        for name, value in model.state_dict().items():
            if tied and name == "lm_head.weight":
                continue
            weight = value.detach().float().numpy()
            if weight.ndim == 1:
                weight = weight + 0.1 * draw.standard_normal(weight.shape).astype(np.float32)
            else:
                weight = weight * (1 if "embed" in name or "lm_head" in name else 4)
            if kind == "llama" and "q_proj" in name:
                weight = interleaved(weight, sizes["num_attention_heads"])
            if kind == "llama" and "k_proj" in name:
                weight = interleaved(weight, sizes["num_key_value_heads"])
            if weight.ndim == 1:
                writer.add_tensor(name_of(name), weight)
                continue
            made, turn = types[turn % len(types)], turn + 1
            writer.add_tensor(name_of(name), packed(made, weight, draw), raw_dtype=made)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


if __name__ == "__main__":
    main()
