"""A pipeline of Stable Diffusion 3's classes with a transformer of random weights, small enough for tests."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image

_EXPERIMENT = Path(__file__).parents[1] / "experiments" / "diffusion"
TEXT_TOKENS = 1


def parts() -> ModuleType:
    """The experiment's own components: an exact VAE, text encoders, tokenizers."""
    return _module("pipeline")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"diffusion_{name}", _EXPERIMENT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


def save(folder: Path, shards: str = "1GB") -> Path:
    """Two blocks, 64 wide, 28 pixels a side, patches of 4; qk_norm gives it norms that can move."""
    made = parts()
    torch.manual_seed(0)
    transformer = made.transformer(depth=2, width=64, heads=2, qk_norm="rms_norm").eval()
    with torch.no_grad():
        # diffusers begins the last layer at zero, and with it every velocity.
        torch.nn.init.normal_(transformer.proj_out.weight, std=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = made.pipeline(transformer, folder.parent / f"{folder.name}-tokenizers")
        pipe.save_pretrained(folder)
        if shards != "1GB":
            (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
            transformer.save_pretrained(folder / "transformer", max_shard_size=shards)
    return folder


def transformer(folder: Path, **others: Any) -> Path:
    """A pipeline's folder with nothing but its transformer, whose every tensor is random, norms too."""
    torch.manual_seed(1)
    settings = {"depth": 2, "width": 64, "heads": 2, "qk_norm": "rms_norm", **others}
    model = parts().transformer(**settings).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn(tensor.shape) * 0.05)
    model.save_pretrained(folder / "transformer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    return folder


def in_gguf(source: Path, out: Path, kind: str = "Q4_0", prefix: str = "") -> Path:
    """A copy of a float pipeline, its transformer in a GGUF file."""
    made: Path = _module("sd3_gguf").write(source, out, kind, prefix=prefix)
    return made


def pictures(folder: Path, count: int = 24) -> Path:
    """Grey squares, some light and some dark, with captions in metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for n in range(count):
        Image.new("L", (28, 28), n * 10).save(folder / f"{n:02}.png")
        lines.append(json.dumps({"file_name": f"{n:02}.png", "text": "a one" if n % 2 else "a two"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def with_t5(source: Path, out: Path) -> Path:
    """A copy of a pipeline with a third text encoder, a T5 of random weights in NF4, and its tokenizer."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    from forq.models.convert.onload import quantized

    shutil.copytree(source, out)
    torch.manual_seed(2)
    config = T5Config(
        vocab_size=16, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )  # fmt: skip
    T5EncoderModel(config).save_pretrained(out / "float")
    quantized(out / "float", "nf4", out / "text_encoder_3")
    shutil.rmtree(out / "float")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -1.0) for word in ("a", "one", "two"))]
    T5TokenizerFast(vocab=pieces, extra_ids=0).save_pretrained(out / "tokenizer_3")
    index = json.loads((out / "model_index.json").read_text(encoding="utf-8"))
    index |= {"text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer_3": ["transformers", "T5TokenizerFast"]}
    (out / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return out
