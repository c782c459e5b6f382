"""A Stable Diffusion 3 pipeline of random weights, as small as it can be, and pictures to tune it on."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image

from forq.models.denoiser import library

SIZE = 28


def parts() -> ModuleType:
    """What surrounds the transformer in the project's own experiment."""
    library()
    path = Path(__file__).parents[1] / "experiments" / "diffusion" / "pipeline.py"
    spec = importlib.util.spec_from_file_location("small_pipeline", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pipeline(folder: Path, depth: int = 2, width: int = 32, **others: object) -> Path:
    """Write one; qk_norm gives it norms that can move."""
    made = parts()
    torch.manual_seed(0)
    model = made.transformer(depth, width, 2, qk_norm="rms_norm", **others)
    with torch.no_grad():  # diffusers begins the last layer at zero, where no scale would change anything
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.pipeline(model, folder.parent / "tokenizers").save_pretrained(folder)
    return folder


def digits(folder: Path, count: int = 24) -> Path:
    """Bars of as many widths as there are captions."""
    folder.mkdir(parents=True)
    rows = []
    for n in range(count):
        picture = Image.new("L", (SIZE, SIZE))
        picture.paste(255 - n, (4, 4, 6 + 2 * (n % 3), 24))
        picture.save(folder / f"{n:02}.png")
        rows.append(json.dumps({"file_name": f"{n:02}.png", "text": ("a one", "a two", "a three")[n % 3]}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
