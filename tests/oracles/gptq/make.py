"""Run in .venv-gptq: the library itself writes tiny random checkpoints.

make.py OUT CASE …   →   OUT/CASE/ for every case named
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

# Without it the quantizer's own thread pool deadlocks on a machine of two cores.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SIZES = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
KINDS = {
    "llama": SIZES | {"intermediate_size": 128, "num_key_value_heads": 2},
    # The library's AWQ wants outputs in multiples of 64.
    "llama-even": SIZES | {"intermediate_size": 128, "num_key_value_heads": 4},
    "opt": SIZES | {"ffn_dim": 128, "word_embed_proj_dim": 64},
}
AWQ = {"quant_method": "awq", "format": "gemm", "sym": False}

CASES = {
    "llama-sym": ("llama", {"group_size": 32, "sym": True, "desc_act": False, "format": "gptq"}),
    "llama-asym": ("llama", {"group_size": 32, "sym": False, "desc_act": False, "format": "gptq"}),
    "llama-asym-v2": ("llama", {"group_size": 64, "sym": False, "desc_act": False, "format": "gptq_v2"}),
    "llama-2bit": ("llama", {"bits": 2, "group_size": 32, "sym": False, "desc_act": False, "format": "gptq_v2"}),
    "llama-3bit": ("llama", {"bits": 3, "group_size": 32, "sym": True, "desc_act": False, "format": "gptq"}),
    "llama-8bit-act-order": ("llama", {"bits": 8, "group_size": 32, "sym": True, "desc_act": True, "format": "gptq"}),
    "llama-act-order": ("llama", {"group_size": 32, "sym": True, "desc_act": True, "format": "gptq"}),
    "opt-sym": (
        "opt",
        {"group_size": -1, "sym": True, "desc_act": False, "format": "gptq", "act_group_aware": False},
    ),
    "llama-awq": ("llama-even", AWQ | {"group_size": 32}),
    "opt-awq": ("opt", AWQ | {"group_size": 64}),
}


def float_model(folder: Path, kind: str) -> None:
    """A random model of a kind, every tensor of it away from its default."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind.partition("-")[0], **KINDS[kind]))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
            elif "embed" not in name:
                value.mul_(4)
    model.to(torch.float16).save_pretrained(folder)
    # The library insists on a tokenizer, although the calibration rows are tokens already.
    words = Tokenizer(models.WordLevel({f"w{token}": token for token in range(256)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w2")
    made.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="+", choices=sorted(CASES))
    args = parser.parse_args()
    for case in args.cases:
        kind, settings = CASES[case]
        draw = torch.Generator().manual_seed(1)
        rows = [torch.randint(3, 256, (48,), generator=draw).tolist() for _ in range(16)]
        with tempfile.TemporaryDirectory() as scratch:
            float_model(Path(scratch), kind)
            model = GPTQModel.load(scratch, QuantizeConfig(**{"bits": 4} | settings))
            calibration = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
            backend = BACKEND.AWQ_TORCH if case.endswith("-awq") else BACKEND.AUTO
            model.quantize(calibration, batch_size=4, backend=backend)
            model.save(str(args.out / case))


if __name__ == "__main__":
    main()
