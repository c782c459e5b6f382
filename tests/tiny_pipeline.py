"""A pipeline of Stable Diffusion 3's classes with a transformer of random weights, small enough for tests."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image

_SOURCE = Path(__file__).parents[1] / "experiments" / "diffusion" / "pipeline.py"
TEXT_TOKENS = 1


def parts() -> ModuleType:
    """The experiment's own components: an exact VAE, text encoders, tokenizers."""
    spec = importlib.util.spec_from_file_location("diffusion_pipeline", _SOURCE)
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


def pictures(folder: Path, count: int = 24) -> Path:
    """Grey squares, some light and some dark, with captions in metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for n in range(count):
        Image.new("L", (28, 28), n * 10).save(folder / f"{n:02}.png")
        lines.append(json.dumps({"file_name": f"{n:02}.png", "text": "a one" if n % 2 else "a two"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
