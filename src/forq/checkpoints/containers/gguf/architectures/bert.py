"""BERT: an encoder without a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forq.checkpoints.containers.gguf.architectures.architecture import Architecture, Described
from forq.checkpoints.containers.gguf.architectures.common import LAYER_NORM


def _bert(file: Described) -> dict[str, Any]:
    return {
        "hidden_size": file.whole_width,
        "intermediate_size": file.hidden,
        "num_hidden_layers": file.layers,
        "num_attention_heads": file.heads,
        "max_position_embeddings": file.context,
        "type_vocab_size": file.shapes.get("token_types.weight", (2,))[0],
        "layer_norm_eps": file.keys.real(LAYER_NORM),
        "hidden_act": "gelu_pytorch_tanh",  # llama.cpp's formula
    }


ENTRIES: Mapping[str, Architecture] = {
    "bert": Architecture(
        "bert",
        "BertModel",
        _bert,
        {
            "token_embd": "embeddings.word_embeddings",
            "position_embd": "embeddings.position_embeddings",
            "token_types": "embeddings.token_type_embeddings",
            "token_embd_norm": "embeddings.LayerNorm",
        },
        {
            "attn_q": "attention.self.query",
            "attn_k": "attention.self.key",
            "attn_v": "attention.self.value",
            "attn_output": "attention.output.dense",
            "attn_output_norm": "attention.output.LayerNorm",
            "ffn_up": "intermediate.dense",
            "ffn_down": "output.dense",
            "layer_output_norm": "output.LayerNorm",
        },
        block="encoder.layer.{}.",
        keys=frozenset({LAYER_NORM}),
        only={"attention.causal": (False, "an encoder"), "pooling_type": (1, "a mean over the tokens")},
    ),
}
