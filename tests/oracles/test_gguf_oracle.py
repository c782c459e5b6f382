"""GGUF files written by gguf-py: we load, move and save them, and gguf-py and transformers load what we saved.

transformers dequantises a file to float32, so the two models are the same function: what is left is the order of sums.
llama.cpp itself, which computes with 8-bit activations, is asked in ``test_llamacpp_oracle.py``. Build
the environment with ``tests/oracles/formats/setup.sh``.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf.header import read
from forq.checkpoints.containers.gguf.model import Model
from forq.layers.embedding import QuantEmbedding
from forq.layers.linear import QuantLinear
from forq.models.load import load
from forq.models.space import space
from forq.scalars.moves import Move, Term, direction_seed
from tests import tiny_checkpoints

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-formats" / "bin" / "python"
CASES = ("llama-q4_0", "llama-mixed", "llama-tied-q8_0", "llama-f16", "llama-bf16", "qwen2-q5_1", "qwen3-q8_0")
CASES = (*CASES, "llama-k", "llama-small-k", "llama-iq4", "llama-iq", "llama-ternary")
FLOATS = ("llama-f16", "llama-bf16")
IDS = tiny_checkpoints.ids(rows=3, length=40)
TEXT = "def main() -> None: returns  the 3 shapes,\n and nothing else."
LOSS, LOGITS = 2e-5, 2e-5

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-formats: build it with tests/oracles/formats/setup.sh"),
]


def call(script: str, *args: object, stdin: str = "") -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / "gguf" / script), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=900, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every case as made, and as saved by us after a move: the file, and what the libraries say of it."""
    root = tmp_path_factory.mktemp("gguf")
    call("make.py", root, *CASES)
    files = []
    for name in CASES:
        model = load(root / name, device="cpu")
        moving = space(model, "dense" if name in FLOATS else "scales,codes")
        terms = [Term(direction_seed(0, 0), 0.05, group=group) for group in moving.groups if group != "codes"]
        terms += [
            Term(direction_seed(1, 0), 1.0, "uniform_grid:2", group) for group in moving.groups if group == "codes"
        ]
        assert moving.apply(Move(tuple(terms))).changed > 0.6 * moving.size
        model.checkpoint.save_patched(root / f"{name}-moved", moving.exported())
        files += [root / name / f"{name}.gguf", root / f"{name}-moved" / f"{name}.gguf"]
    asked = json.dumps({"ids": IDS.tolist(), "text": TEXT})
    lines = [line for line in call("answers.py", *files, stdin=asked).splitlines() if line.startswith("RESULT ")]
    answers = [json.loads(line.removeprefix("RESULT ")) for line in lines]
    return {Path(answer["file"]).parent.name: answer for answer in answers}


@pytest.mark.parametrize("moved", ["", "-moved"])
@pytest.mark.parametrize("case", CASES)
def test_transformers_sees_the_model_we_see(
    case: str, moved: str, theirs: dict[str, dict[str, Any]], compared: Any
) -> None:
    answer = theirs[case + moved]
    logits = load(answer["file"], device="cpu")(IDS).logits
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item()
    want = torch.tensor(answer["logits"])
    compared("transformers (GGUF)", "loss; nats", abs(loss - answer["loss"]))
    assert abs(loss - answer["loss"]) < LOSS
    assert (logits[:, -1] - want).abs().max() < LOGITS * want.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_the_move_is_seen(case: str, theirs: dict[str, dict[str, Any]]) -> None:
    here, there = theirs[case], theirs[f"{case}-moved"]
    assert (torch.tensor(here["logits"]) - torch.tensor(there["logits"])).abs().max() > 0.01


@pytest.mark.parametrize("moved", ["", "-moved"])
@pytest.mark.parametrize("case", [case for case in CASES if case not in FLOATS])
def test_matrices_are_gguf_pys_bit_for_bit(
    case: str, moved: str, theirs: dict[str, dict[str, Any]], compared: Any
) -> None:
    file = Path(theirs[case + moved]["file"])
    model, held = load(file, device="cpu", kernel="reference"), np.load(file.with_suffix(".npz"))
    llama = Checkpoint.open(file).config["model_type"] == "llama"
    ours = {
        layer.leaf_name.removesuffix(".d"): layer.dequantise().numpy()
        for module in model.modules()
        for layer in ([module.table] if isinstance(module, QuantEmbedding) else [module])
        if isinstance(layer, QuantLinear)
    }
    assert len(ours) == len(held.files)
    described = Model(file, read(file).values, {})
    for name in held.files:
        want = held[name]
        if llama and name.endswith(("attn_q.weight", "attn_k.weight")):
            heads = 4 if name.endswith("attn_q.weight") else 2
            want = want.reshape(heads, -1, 2, want.shape[1]).swapaxes(1, 2).reshape(want.shape)
        assert np.array_equal(ours[described.place(name)[0]], want), name
        compared("gguf", "matrices; relative", 0)


def test_transformers_and_llamacpp_agree_on_a_plain_byte_level_file(theirs: dict[str, dict[str, Any]]) -> None:
    """Elsewhere llama.cpp decides alone: ``test_llamacpp_tokens_oracle.py``."""
    answer = theirs["llama-q4_0-moved"]
    made = Checkpoint.open(answer["file"]).contents.tokenizer
    assert made is not None and made()(TEXT)["input_ids"] == answer["tokens"]
    assert answer["tokens"][0] == 0  # BOS, as the file asks
