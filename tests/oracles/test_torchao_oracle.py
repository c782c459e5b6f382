"""The library torchao's files belong to, through transformers: it quantizes, we load, move and save, it loads.

Models in float32 agree to the last bits; in bfloat16 the library rounds every weight and activation to that, and where
activations are of 8 bits it rounds them too: those cases have a tolerance of their own, and the weights alone are held
to 1e-6. Build the environment with ``tests/oracles/formats/setup.sh`` (minutes).
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
from forq.layers.linear import QuantLinear
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.space import space
from forq.scalars.moves import Move, Term, direction_seed

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-formats" / "bin" / "python"
EXACT = ("int8-llama", "int8-groups-qwen2", "int8-matrix-opt", "int4-llama", "int4-asymmetric-opt", "int3-rows")
EXACT = (*EXACT, "int2-llama")
ROUNDED = ("int8-tied-bf16", "int4-asymmetric-bf16", "int8-dynamic", "int4-dynamic")
CASES = (*EXACT, *ROUNDED)
LOSS, ROUNDED_LOSS, WEIGHTS = 2e-6, 2e-2, 1e-6
IDS = torch.randint(3, 256, (3, 24), generator=torch.Generator().manual_seed(5))

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-formats: build it with tests/oracles/formats/setup.sh"),
]


def call(script: str, *args: object, stdin: str = "") -> str:
    """What a script prints in the library's environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / "torchao" / script), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=900, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every case as the library made it and as saved after moves of all kinds: the folder, and its answer on it."""
    root = tmp_path_factory.mktemp("torchao")
    call("make.py", root, *CASES)
    folders = []
    for name in CASES:
        model = load(root / name, device="cpu", kernel="reference")
        kinds = [kind for kind in ("scales", "codes", "zeros") if _has(model, kind)]
        moving = space(model, ",".join(kinds))
        for step in range(3):
            terms = [Term(direction_seed(0, step), 0.05, group="scales")]
            terms += [Term(direction_seed(1, step), 1.0, "sparse:0.02", kind) for kind in kinds[1:]]
            moving.apply(Move(tuple(terms)))
        model.checkpoint.save_patched(root / f"{name}-moved", moving.exported())
        folders += [root / name, root / f"{name}-moved"]
    lines = call("loss.py", *folders, stdin=json.dumps(IDS.tolist())).splitlines()
    answers = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    return {Path(answer["folder"]).name: answer for answer in answers}


@pytest.mark.parametrize("moved", ["", "-moved"])
@pytest.mark.parametrize("case", CASES)
def test_the_library_sees_the_model_we_see(
    case: str, moved: str, theirs: dict[str, dict[str, Any]], compared: Any
) -> None:
    answer = theirs[case + moved]
    weights = torch.load(Path(answer["folder"]) / "weights.pt", weights_only=True)
    model = load(answer["folder"], device="cpu")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    assert set(weights) == set(layers)
    for name, layer in layers.items():
        far = (layer.dequantise().double() - weights[name]).abs().max() / weights[name].abs().max()
        compared("torchao", "matrices; relative", far)
        assert far < WEIGHTS
    logits, want = model(IDS).logits, torch.tensor(answer["logits"])
    bound = LOSS if case in EXACT else ROUNDED_LOSS
    off = abs(cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item() - answer["loss"])
    compared("torchao", f"loss, {'same' if case in EXACT else 'other'} rounding; nats", off)
    assert off < bound
    assert (logits[:, -1] - want).abs().max() < 5 * bound * want.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_the_move_is_seen_by_the_library(case: str, theirs: dict[str, dict[str, Any]]) -> None:
    here, there = theirs[case], theirs[f"{case}-moved"]
    assert (torch.tensor(here["logits"]) - torch.tensor(there["logits"])).abs().max() > 0.01


def test_what_did_not_move_is_the_same_file(theirs: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    folder = Path(theirs["int4-llama"]["folder"])
    leaves = trainable(load(folder, device="cpu"))
    Checkpoint.open(folder).save_patched(tmp_path / "out", {leaf.name: leaf.read() for leaf in leaves})
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 1
    assert all((tmp_path / "out" / file.name).read_bytes() == file.read_bytes() for file in files)


def _has(model: Any, kind: str) -> bool:
    layers = [layer for layer in model.modules() if isinstance(layer, QuantLinear)]
    return kind != "zeros" or any(layer.zero_points is not None for layer in layers)
