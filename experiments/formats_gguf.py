"""Run in .venv-formats: a float Llama as one GGUF file, as llama.cpp's converter lays it out.

    python experiments/formats_gguf.py q4_0 FLOAT OUT      # Q4_0 by gguf-py; the embedding Q8_0
    python experiments/formats_gguf.py q4_k FLOAT OUT      # Q4_K; values, down projections and the embedding Q6_K

gguf-py writes no k-quants. Those here are the plain ones: sub-blocks' ranges to nearest, no search and no importances,
so a little worse than llama.cpp's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

Q = gguf.GGMLQuantizationType
PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
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


def six_bits(scale: np.ndarray, less: np.ndarray) -> np.ndarray:
    """Two of (n, 8) six-bit numbers as Q4_K packs them: uint8 (n, 12)."""
    low = scale[:, :4] | scale[:, 4:] >> 4 << 6
    mid = less[:, :4] | less[:, 4:] >> 4 << 6
    return np.concatenate([low, mid, scale[:, 4:] & 15 | (less[:, 4:] & 15) << 4], axis=1).astype(np.uint8)


def over(x: np.ndarray, by: np.ndarray) -> np.ndarray:
    """x / by, 0 where by is."""
    return np.divide(x, by, out=np.zeros(np.broadcast(x, by).shape, np.float32), where=by != 0)


def q4_k(weight: np.ndarray) -> np.ndarray:
    x = weight.reshape(-1, 8, 32)
    less = np.maximum(-x.min(-1), 0)
    scale = (x.max(-1).clip(0) + less) / 15
    d, dmin = (v.max(-1, keepdims=True).astype(np.float16).astype(np.float32) / 63 for v in (scale, less))
    d, dmin = (v.astype(np.float16) for v in (d, dmin))
    s, m = (np.rint(over(v, u.astype(np.float32))).clip(0, 63).astype(np.uint8) for v, u in ((scale, d), (less, dmin)))
    step, base = (np.float32(u) * v for u, v in ((d, s), (dmin, m)))
    q = np.rint(over(x + base[..., None], step[..., None])).clip(0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    qs = (q[:, :, 0] | q[:, :, 1] << 4).reshape(-1, 128)
    raw = np.concatenate([d.view(np.uint8), dmin.view(np.uint8), six_bits(s, m), qs], axis=1)
    return raw.reshape(len(weight), -1)


def q6_k(weight: np.ndarray) -> np.ndarray:
    x = weight.reshape(-1, 16, 16)
    scale = np.abs(x).max(-1) / 31
    d = (scale.max(-1, keepdims=True) / 127).astype(np.float16)
    s = np.rint(over(scale, d.astype(np.float32))).clip(0, 127).astype(np.int8)
    q = (np.rint(over(x, (np.float32(d) * s)[..., None])) + 32).clip(0, 63).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = q & 15, q >> 4
    ql = np.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=-1)
    qh = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    raw = np.concatenate([ql.reshape(-1, 128), qh.reshape(-1, 64), s.view(np.uint8), d.view(np.uint8)], axis=1)
    return raw.reshape(len(weight), -1)


def written(weight: np.ndarray, kind: Q) -> np.ndarray:
    by = {Q.Q4_K: q4_k, Q.Q6_K: q6_k}
    made = by[kind](weight) if kind in by else gguf.quants.quantize(weight, kind)
    assert np.abs(gguf.quants.dequantize(made, kind) - weight).max() < 0.2 * np.abs(weight).max()
    return made


def tokenizer(writer: gguf.GGUFWriter, floating: Path) -> None:
    """The vocabulary and merges of tokenizer.json."""
    said = json.loads((floating / "tokenizer.json").read_text())
    tokens = sorted(said["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["id"] for token in said["added_tokens"]}
    pieces = said["pre_tokenizer"] is None
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    if not pieces:
        writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in tokens])
    if pieces:
        writer.add_token_scores([-float(place) for _, place in tokens])
    writer.add_token_types([3 if place in special else 1 for _, place in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in said["model"]["merges"]])


def main() -> None:
    how, floating, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    config = json.loads((floating / "config.json").read_text())
    out.mkdir(parents=True)
    writer = gguf.GGUFWriter(out / f"{how}.gguf", "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    tokenizer(writer, floating)
    for name, key in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id)):
        if config.get(f"{name}_token_id") is not None:
            key(config[f"{name}_token_id"])
    front = json.loads((floating / "tokenizer.json").read_text())["post_processor"]["single"]
    writer.add_add_bos_token("SpecialToken" in front[0])
    held = load_file(floating / "model.safetensors")
    if config["tie_word_embeddings"] and "model.embed_tokens.weight" not in held:
        held["model.embed_tokens.weight"] = held.pop("lm_head.weight")
    for name, weight in sorted(held.items()):
        weight = weight.astype(np.float32)
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            weight = interleaved(weight, config[heads]) if part in name else weight
        if weight.ndim == 1:
            writer.add_tensor(name_of(name), weight)
            continue
        fine = "embed" in name or "lm_head" in name
        kind = Q.Q8_0 if fine else Q.Q4_0
        if how == "q4_k":
            kind = Q.Q6_K if fine or "v_proj" in name or "down_proj" in name else Q.Q4_K
        kind = Q.F16 if weight.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] else kind
        data = weight.astype(np.float16) if kind == Q.F16 else written(weight, kind)
        writer.add_tensor(name_of(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
