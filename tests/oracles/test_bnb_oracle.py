"""bitsandbytes through transformers, in an environment of its own: it writes, we load, move and save, it loads.

Its matrices, dequantised by its own functions, are ours to the last bits, and in float32 layers they give our losses.
Its own forward is another one: at 4 bits it computes in the dtype the file names (float16, bfloat16), at 8 bits it
rounds the activations too. Build the environment with ``tests/oracles/formats/setup.sh`` (minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from forq.layers.normal_float import packed, quantise, table
from forq.models.convert.quantize import quantize
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.saved import write
from tests import tiny_checkpoints

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-formats" / "bin" / "python"
CASES = ("nf4-llama-f16", "nf4-llama-f32", "nf4-odd-bf16", "nf4-tied", "nf4-qwen2", "nf4-opt", "nf4-nested")
CASES = (*CASES, "nf4-nested-qwen2", "fp4-llama", "fp4-nested-opt", "int8-llama", "int8-qwen2", "int8-opt")
CASES = (*CASES, "nf4-gpt2", "nf4-mixed", "int8-gpt2")
OWN = {
    "own-nf4": ("llama-tied", "nf4", ()),
    "own-nf4-kept": ("llama-tied", "nf4", ("down_proj", "model.layers.0.self_attn.q_proj")),
    "own-fp4-biased": ("llama-biased", "fp4", ()),
    "own-nf4-opt-350m": ("opt-350m", "nf4", ()),
}
MOVES = ("", "-scales", "-codes")
SAME, NATIVE = 3e-6, 0.03
IDS = tiny_checkpoints.ids(rows=3, length=40)

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-formats: build it with tests/oracles/formats/setup.sh"),
]


def call(script: str, *args: object, stdin: str = "") -> str:
    """What a script prints in the library's environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / "bnb" / script), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=900, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every case as made and as saved by us after a move of scales or of codes: the library's answer on it."""
    root = tmp_path_factory.mktemp("bnb")
    call("make.py", root, *CASES)
    for name, (kind, to, keep) in OWN.items():
        floats = tiny_checkpoints.folder(root / f"float-{name}", kind, torch.float16)
        quantize(floats, root / name, to=to, keep=keep)
    folders = []
    for name in (*CASES, *OWN):
        folders.append(root / name)
        for kind in ("scales", "codes"):
            model = load(root / name, device="cpu")
            draw, moved = torch.Generator().manual_seed(0), {}
            for leaf in trainable(model, kind):
                here = leaf.read()
                if kind == "scales":
                    moved[leaf.name] = here * (1 + 0.05 * torch.randn(here.shape, generator=draw))
                    continue
                leaf.write((here + torch.randint(-1, 2, here.shape, generator=draw)).clamp(*leaf.range))
                moved[leaf.name] = leaf.packed(leaf.storage)
            folders.append(root / f"{name}-{kind}")
            write(model.checkpoint, moved, folders[-1])
    (root / "matrices").mkdir()
    lines = call("answers.py", root / "matrices", *folders, stdin=json.dumps(IDS.tolist())).splitlines()
    answers = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    return {Path(answer["folder"]).name: answer for answer in answers}


@pytest.mark.parametrize("moved", MOVES)
@pytest.mark.parametrize("case", [*CASES, *OWN])
def test_the_library_sees_the_model_we_see(
    case: str, moved: str, theirs: dict[str, dict[str, Any]], compared: Any
) -> None:
    answer = theirs[case + moved]
    folder = Path(answer["folder"])
    model = load(folder, device="cpu")
    for name, want in load_file(folder.parent / "matrices" / f"{folder.name}.safetensors").items():
        found = model.get_submodule(name).dequantise()
        far = (found.double() - want.double()).abs().max() / want.abs().max()
        compared("bitsandbytes", "matrices; relative", far)
        assert far < 1e-6
    logits = model(IDS).logits
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item()
    want = torch.tensor(answer["plain"]["logits"])
    compared("bitsandbytes", "loss of its matrices in float32; nats", abs(loss - answer["plain"]["loss"]))
    assert abs(loss - answer["plain"]["loss"]) < SAME * answer["plain"]["loss"]
    assert (logits[:, -1] - want).abs().max() < SAME * want.abs().max()
    native = torch.tensor(answer["native"]["logits"])
    compared("bitsandbytes", "loss of its own forward; nats", abs(loss - answer["native"]["loss"]))
    assert abs(loss - answer["native"]["loss"]) < NATIVE * loss
    assert (native - want).abs().mean() < NATIVE * want.abs().max()


@pytest.mark.parametrize("moved", MOVES[1:])
@pytest.mark.parametrize("case", [*CASES, *OWN])
def test_the_move_is_seen_by_the_library(case: str, moved: str, theirs: dict[str, dict[str, Any]]) -> None:
    here, there = (torch.tensor(theirs[name]["plain"]["logits"]) for name in (case, case + moved))
    assert (here - there).abs().max() > 0.01


def test_rounding_to_nearest_is_the_librarys_to_the_last_byte(tmp_path: Path, compared: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    levels = table("nf4").levels
    wide = torch.randn(48, 80, generator=draw)
    matrices = {
        "wide": wide,
        "half": (wide * 0.02).half(),
        "brain": (wide * 30).bfloat16(),
        "short": torch.randn(10, 30, generator=draw),
        "zeros": torch.cat([torch.zeros(2, 64), torch.full((2, 64), 1e-39), wide[:2, :64]]),
        "middles": torch.cat([(levels[:-1] + levels[1:]) / 2, torch.ones(1)]).repeat(8, 4),
    }
    save_file(matrices, tmp_path / "in.safetensors")
    call("round.py", tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    theirs = load_file(tmp_path / "out.safetensors")
    for name, matrix in matrices.items():
        for kind in ("nf4", "fp4"):
            for blocksize in (64, 256):
                ranks, absmax = quantise(matrix, kind, blocksize)
                assert torch.equal(absmax, theirs[f"{name}.{kind}.{blocksize}.absmax"].float())
                codes = packed(table(kind).code_of[ranks.int()])
                assert torch.equal(codes, theirs[f"{name}.{kind}.{blocksize}.codes"]), (name, kind, blocksize)
                compared("bitsandbytes", "rounding to nearest; bytes", 0)
