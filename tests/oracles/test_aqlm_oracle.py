"""The library AQLM belongs to, through transformers: it loads what we made, and what we saved after a few steps.

It writes nothing itself without a GPU and hours, so that the files begin with ours. 2x8 runs in its numba kernel, all
else by plain dequantisation; neither rounds to less than float32 on a CPU. Build the environment with
``tests/oracles/formats/setup.sh`` (minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.formats import get
from forq.layers.linear import QuantLinear
from forq.models.load import load
from forq.models.space import space
from forq.scalars.moves import Move, Term, direction_seed
from tests.fixtures import aqlm

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-formats" / "bin" / "python"
CASES: dict[str, dict[str, Any]] = {
    "2x8": {},
    "2x8-bfloat16": {"dtype": torch.bfloat16},
    "1x16": {"num_codebooks": 1, "nbits_per_codebook": 16},
    "3x5-in-16-float32": dict(aqlm.VARIANTS["3x5-in-16-float32"]),
    "2x8-biased": {},
    "2x6-out-2": dict(aqlm.VARIANTS["out-2-bfloat16"]),
}
LOSS, WEIGHTS = 2e-6, 1e-6
IDS = torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(3))

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-formats: build it with tests/oracles/formats/setup.sh"),
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every case as made and as saved after three steps: the folder, and the library's answer on it."""
    root = tmp_path_factory.mktemp("aqlm")
    folders = []
    for name, changes in CASES.items():
        folder = aqlm.example(root / name, **changes)
        if "biased" in name:
            _with_biases(folder)
        model = load(folder, device="cpu")
        moving = space(model, "scales,codebooks,codes")
        for step in range(3):
            terms = [Term(direction_seed(0, step), 0.05, group=kind) for kind in ("scales", "codebooks")]
            moved = moving.apply(Move((*terms, Term(direction_seed(1, step), 1.0, "uniform_grid:2", "codes"))))
            assert moved.changed > moved.total / 2
        model.checkpoint.save_patched(root / f"{name}-moved", moving.exported())
        folders += [folder, root / f"{name}-moved"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / "aqlm" / "loss.py"), *map(str, folders)]
    done = subprocess.run(
        command, input=json.dumps(IDS.tolist()), capture_output=True, text=True, timeout=900, env=clean
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    answers = [json.loads(line) for line in lines]
    return {Path(answer["folder"]).name: answer for answer in answers}


@pytest.mark.parametrize("moved", ["", "-moved"])
@pytest.mark.parametrize("case", CASES)
def test_the_library_sees_the_model_we_see(
    case: str, moved: str, theirs: dict[str, dict[str, Any]], compared: Any
) -> None:
    answer = theirs[case + moved]
    model = load(answer["folder"], device="cpu")
    logits = model(IDS).logits
    want = torch.tensor(answer["logits"])
    off = abs(cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item() - answer["loss"])
    compared("aqlm", "loss; nats", off)
    assert off < LOSS
    assert (logits[:, -1] - want).abs().max() < LOSS * want.abs().max()
    saved = torch.load(Path(answer["folder"]) / "weights.pt", weights_only=True)
    weights = {name: weight.detach() for name, weight in saved.items()}
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    assert set(weights) == set(layers)
    for name, layer in layers.items():
        far = (layer.dequantise().double() - weights[name]).abs().max() / weights[name].abs().max()
        compared("aqlm", "matrices; relative", far)
        assert far < WEIGHTS


@pytest.mark.parametrize("case", CASES)
def test_the_move_is_seen_by_the_library(case: str, theirs: dict[str, dict[str, Any]]) -> None:
    here, there = theirs[case], theirs[f"{case}-moved"]
    assert (torch.tensor(here["logits"]) - torch.tensor(there["logits"])).abs().max() > 0.01


def _with_biases(folder: Path) -> None:
    """Biases beside every layer, in a configuration that asks for them."""
    ckpt = Checkpoint.open(folder)
    tensors = {name: ckpt.read(name) for name in ckpt.info}
    for name, spec in get("aqlm").layers(ckpt).items():
        tensors[f"{name}.bias"] = torch.linspace(-0.5, 0.5, spec.out_features).to(torch.float16)
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_file(folder / "model.safetensors", plan, tensors.items())
    config = ckpt.config | {"attention_bias": True, "mlp_bias": True}
    (folder / "config.json").write_text(json.dumps(config))
