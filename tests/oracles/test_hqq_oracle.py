"""The library HQQ belongs to: it quantizes, we load, move and save, it loads.

It loads into float32, as we do, so that both agree to the last bits. transformers 5.23 itself loads no such files.
Build the environment with ``tests/oracles/formats/setup.sh`` (minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
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
CASES = ("4bit-llama", "4bit-tied-f16", "8bit-rows", "3bit-llama", "2bit-qwen2", "4bit-axis-0-qwen2", "3bit-axis-0")
LOSS, WEIGHTS = 2e-6, 1e-6
IDS = torch.randint(3, 256, (3, 24), generator=torch.Generator().manual_seed(5))

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-formats: build it with tests/oracles/formats/setup.sh"),
]


def call(script: str, *args: object, stdin: str = "") -> str:
    """What a script prints in the library's environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / "hqq" / script), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=900, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every case as the library made it and as saved after moves of all kinds: the folder, and its answer on it."""
    root = tmp_path_factory.mktemp("hqq")
    call("make.py", root, *CASES)
    folders = []
    for name in CASES:
        model = load(root / name, device="cpu", kernel="reference")
        moving = space(model, "scales,offsets,codes")
        for step in range(3):
            terms = [Term(direction_seed(0, step), 0.03, group=kind) for kind in ("scales", "offsets")]
            moving.apply(Move((*terms, Term(direction_seed(1, step), 1.0, "sparse:0.02", "codes"))))
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
        compared("hqq", "matrices; relative", far)
        assert far < WEIGHTS
    logits, want = model(IDS).logits, torch.tensor(answer["logits"])
    off = abs(cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item() - answer["loss"])
    compared("hqq", "loss; nats", off)
    assert off < LOSS
    assert (logits[:, -1] - want).abs().max() < 5 * LOSS * want.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_the_move_is_seen_by_the_library(case: str, theirs: dict[str, dict[str, Any]]) -> None:
    here, there = theirs[case], theirs[f"{case}-moved"]
    assert (torch.tensor(here["logits"]) - torch.tensor(there["logits"])).abs().max() > 0.01
    with zipfile.ZipFile(Path(there["folder"]) / "qmodel.pt") as file:
        assert file.testzip() is None


@pytest.mark.parametrize("case", CASES)
def test_what_did_not_move_is_the_same_file(case: str, theirs: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    folder = Path(theirs[case]["folder"])
    leaves = trainable(load(folder, device="cpu"), "scales,offsets")
    Checkpoint.open(folder).save_patched(tmp_path / "out", {leaf.name: leaf.read() for leaf in leaves})
    assert (tmp_path / "out" / "qmodel.pt").read_bytes() == (folder / "qmodel.pt").read_bytes()
