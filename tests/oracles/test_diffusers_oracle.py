"""diffusers and bitsandbytes load NF4 pipelines as we write them, before and after their scales moved."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from forq.models.convert.onload import quantized
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.saved import write
from tests import tiny_pipeline

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-formats" / "bin" / "python"
SAME, NATIVE = 1e-5, 0.03
"""Of the largest value; bitsandbytes' own products on a CPU may be of bfloat16."""

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-formats: build it with tests/oracles/formats/setup.sh"),
]


@pytest.fixture(scope="module", params=["nf4", "fp4"])
def answers(request, tmp_path_factory):
    """(inputs, folder as made, folder with moved scales), both answered."""
    root = tmp_path_factory.mktemp("diffusers")
    quantized(tiny_pipeline.save(root / "float"), request.param, root / "made")
    model, draw = load(root / "made", "cpu"), torch.Generator().manual_seed(3)
    moved = {
        leaf.name: leaf.read() * (1 + 2 * torch.rand(leaf.read().shape, generator=draw))
        for leaf in trainable(model, "scales")
    }
    write(model.checkpoint, moved, root / "moved")
    inputs = {
        "x": torch.randn(2, 1, 28, 28, generator=draw),
        "text": torch.randn(2, 6, 64, generator=draw),
        "pooled": torch.randn(2, 64, generator=draw),
        "time": torch.tensor([100.0, 700.0]),
    }
    save_file(inputs, root / "inputs.safetensors")
    folders = [root / "made", root / "moved"]
    command = [PYTHON, HERE / "diffusers" / "answers.py", root / "inputs.safetensors", *folders]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    return inputs, *folders


def ours(inputs, folder):
    with torch.inference_mode():
        found = load(folder, "cpu")(inputs["x"], inputs["text"], inputs["pooled"], inputs["time"], return_dict=False)
    return found[0]


def test_diffusers_computes_the_model_we_compute(answers, compared):
    inputs, *folders = answers
    made, moved = (load_file(folder / "answer.safetensors") for folder in folders)
    largest = made["plain"].abs().max()
    assert (made["plain"] - moved["plain"]).abs().max() > 1000 * SAME * largest, "a move must be seen in the answers"
    for folder, theirs in zip(folders, (made, moved), strict=True):
        found = ours(inputs, folder)
        far = (found - theirs["plain"]).abs().max() / largest
        compared("diffusers", "output of a transformer; relative", far)
        assert far < SAME
        assert (found - theirs["native"]).abs().max() < NATIVE * largest
