"""The library of compressed-tensors, in an environment of its own: it compresses, we load, move, save, it loads.

It makes its matrices dense at the first forward, in float32 here: they are held to ours bit for bit, and losses and
logits to float32's last places. Where a configuration rounds inputs too the library is asked twice, with and without;
ours are the numbers without, and what rounding costs is seen not to be nothing. Build the environment with
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
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from forq.formats.compressed_tensors import format as compressed_tensors
from forq.models.leaves import trainable
from forq.models.load import load
from tests import tiny_checkpoints
from tests.repacked import repacked

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-formats" / "bin" / "python"
# What the library compressed, and what loads a case: transformers, or the library layer by layer (see loss.py).
CASES = {
    "w4": "transformers",
    "w4-asym": "compressed-tensors",
    "w4-row": "transformers",
    "w4-row-asym": "compressed-tensors",
    "w8": "transformers",
    "w8-asym": "compressed-tensors",
    "w2": "transformers",
    "w8a8": "transformers",
    "w8a8-asym": "transformers",
    "w8a8-tensor": "transformers",
    "mixed": "compressed-tensors",
}
OWN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "own-tied-bfloat16": ("transformers", "llama-tied", {"sym": True, "scale_dtype": torch.bfloat16}),
    "own-biased-shards": ("compressed-tensors", "llama-biased", {"group_size": 32, "shards": 3, "left": ("o_proj",)}),
    "own-8bit-row": ("transformers", "opt", {"bits": 8, "group_size": -1, "sym": True, "scale_dtype": torch.float32}),
    "own-2bit": ("compressed-tensors", "llama", {"bits": 2}),
}
EQUAL = 3e-6
IDS = tiny_checkpoints.ids(rows=3, length=40)

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-formats: build it with tests/oracles/formats/setup.sh"),
]


def call(script: str, *args: object, stdin: str = "") -> str:
    """What a script prints in the library's environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / "compressed" / script), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=900, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every case as made and as saved by us after a move of all that moves: the library's answer on both."""
    root = tmp_path_factory.mktemp("compressed")
    call("make.py", root, *CASES)
    for name, (_, kind, how) in OWN.items():
        floating = tiny_checkpoints.folder(root / f"float-{name}", kind, torch.float16)
        left = (*how.get("left", ()), "lm_head")
        repacked(floating, root / name, compressed_tensors, **how | {"left": left})
    folders = []
    for name in (*CASES, *OWN):
        model, draw, moved = load(root / name, device="cpu"), torch.Generator().manual_seed(0), {}
        kinds = {"scales", "codes"} | {"zeros" for m in model.modules() if getattr(m, "zero_points", None) is not None}
        for leaf in trainable(model, ",".join(kinds)):
            here = leaf.read()
            if leaf.group == "scales":
                moved[leaf.name] = here * (1 + 0.05 * torch.randn(here.shape, generator=draw))
                continue
            leaf.write((here + torch.randint(-1, 2, here.shape, generator=draw)).clamp(*leaf.range))
            moved[leaf.name] = leaf.packed(leaf.storage if leaf.group == "codes" else leaf.read())
        model.checkpoint.save_patched(root / f"{name}-moved", moved)
        folders += [root / name, root / f"{name}-moved"]
    lines = call("loss.py", *folders, stdin=json.dumps(IDS.tolist())).splitlines()
    answers = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    return {Path(answer["folder"]).name: answer for answer in answers}


@pytest.mark.parametrize("moved", ["", "-moved"])
@pytest.mark.parametrize("case", [*CASES, *OWN])
def test_the_library_sees_the_model_we_see(
    case: str, moved: str, theirs: dict[str, dict[str, Any]], compared: Any
) -> None:
    answer = theirs[case + moved]
    assert answer["through"] == (CASES[case] if case in CASES else OWN[case][0])
    model, want = load(answer["folder"], device="cpu"), torch.tensor(answer["logits_weights"])
    logits = model(IDS).logits
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item()
    compared("compressed-tensors", "loss; nats", abs(loss - answer["loss_weights"]))
    assert abs(loss - answer["loss_weights"]) < EQUAL
    assert (logits[:, -1] - want).abs().max() < EQUAL * want.abs().max()


@pytest.mark.parametrize("moved", ["", "-moved"])
@pytest.mark.parametrize("case", [*CASES, *OWN])
def test_its_dense_matrices_are_ours(case: str, moved: str, theirs: dict[str, dict[str, Any]], compared: Any) -> None:
    folder = theirs[case + moved]["folder"]
    model, dense = load(folder, device="cpu"), load_file(f"{folder}.dense.safetensors")
    assert len(dense) > 10
    for name, matrix in dense.items():
        assert torch.equal(model.get_submodule(name).dequantise(), matrix)
        compared("compressed-tensors", "matrices; relative", 0)


@pytest.mark.parametrize("case", [*CASES, *OWN])
def test_the_move_is_seen_by_the_library(case: str, theirs: dict[str, dict[str, Any]]) -> None:
    here, there = theirs[case], theirs[f"{case}-moved"]
    assert (torch.tensor(here["logits"]) - torch.tensor(there["logits"])).abs().max() > 0.01


@pytest.mark.parametrize("case", CASES)
def test_inputs_that_are_to_be_rounded_are_told_of(case: str, theirs: dict[str, dict[str, Any]]) -> None:
    rounds = abs(theirs[case]["loss"] - theirs[case]["loss_weights"]) > 1e-5
    assert rounds == case.startswith("w8a8") == bool(load(theirs[case]["folder"], device="cpu").unlike)
