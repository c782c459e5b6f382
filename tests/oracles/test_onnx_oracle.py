"""onnxruntime: its quantizer writes, we load, move and save, a plain session answers with our numbers.

Build the environment with ``tests/oracles/formats/setup.sh`` (minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn.functional import cross_entropy

from forq.errors import ConfigError
from forq.models.load import load
from forq.models.saved import write
from forq.models.space import space
from forq.scalars.moves import Move, Term, direction_seed
from tests import tiny_lm
from tests.fixtures.onnx_llama import dense, llama

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-formats" / "bin" / "python"
CASES = {
    "4bit": ("--bits", 4, "--block", 16),
    "4bit-asymmetric": ("--bits", 4, "--block", 32, "--asymmetric"),
    "8bit": ("--bits", 8, "--block", 32),
    "4bit-level-4": ("--bits", 4, "--block", 16, "--level", 4),
}
IDS = torch.randint(3, 256, (3, 24), generator=torch.Generator().manual_seed(5))

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-formats: build it with tests/oracles/formats/setup.sh"),
]


def call(script: str, *args: object, stdin: str = "") -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / "onnx" / script), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=600, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]


def loss(logits: torch.Tensor) -> float:
    return float(cross_entropy(logits[:, :-1].flatten(0, 1).double(), IDS[:, 1:].flatten()))


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    lm = tiny_lm.model("llama", vocab_size=300)
    tensors = {name: tensor.numpy() for name, tensor in lm.state_dict().items()}
    graph = llama(lm.config.to_dict() | {"rope_theta": 10000.0}, tensors, dense(tensors))
    onnx.save_model(graph, str(folder / "float.onnx"))
    (folder / "made").mkdir()
    call("quantize.py", folder / "float.onnx", folder / "made" / "model.onnx", *CASES[request.param])
    return request.param, folder / "made"


@pytest.mark.parametrize("kind", ["scales", "codes", "zeros"])
def test_a_plain_session_answers_with_our_numbers_after_a_move(
    made: tuple[str, Path], kind: str, tmp_path: Path, compared: Any
) -> None:
    name, folder = made
    model: Any = load(folder, device="cpu")
    if kind == "zeros" and "asymmetric" not in name:
        with pytest.raises(ConfigError, match="zeros to move"):
            space(model, kind)
        return
    moving = space(model, kind, "relative" if kind == "scales" else "cells")
    size, noise = (0.03, "rademacher") if kind == "scales" else (1.0, "sparse:0.015")
    for step in range(3):
        moving.apply(Move((Term(direction_seed(0, step), size, noise),)))
    write(model.checkpoint, moving.exported(), tmp_path / "moved")
    answers = []
    for path, shown in ((folder, load(folder, device="cpu")), (tmp_path / "moved", model)):
        call("answer.py", path / "model.onnx", tmp_path / "logits.npy", stdin=json.dumps(IDS.tolist()))
        theirs, ours = torch.from_numpy(np.load(tmp_path / "logits.npy")), shown(IDS).logits
        answers.append((loss(theirs), loss(ours)))
    # Level 4 rounds activations to 8 bits: its owner's losses are those of a slightly other network.
    near = 5e-2 if name.endswith("level-4") else 2e-6
    for theirs_loss, ours_loss in answers:
        compared(
            "onnxruntime", f"loss, {'other' if near > 1e-3 else 'same'} rounding; nats", abs(theirs_loss - ours_loss)
        )
        assert abs(theirs_loss - ours_loss) < near * abs(theirs_loss)
    assert abs(answers[1][1] - answers[0][1]) > 1e-3


def test_a_layer_multiplies_by_the_matrix_the_operator_does(made: tuple[str, Path], compared: Any) -> None:
    """One-hot rows through the node alone, at level 0, its codes and scales constants."""
    model: Any = load(made[1], device="cpu")
    graph = onnx.load(str(made[1] / "model.onnx")).graph
    nodes = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(nodes) == len(model.layers) == 15
    for node in nodes:
        layer = model.get_submodule(node.name)
        for one in node.attribute:
            one.i = 0 if one.name == "accuracy_level" else one.i
        floats = helper.make_tensor_value_info
        alone = helper.make_graph(
            [node],
            "alone",
            [floats(node.input[0], TensorProto.FLOAT, ["tokens", layer.in_features])],
            [floats(node.output[0], TensorProto.FLOAT, ["tokens", layer.out_features])],
            [tensor for tensor in graph.initializer if tensor.name in node.input],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        written = helper.make_model(alone, opset_imports=opsets, ir_version=9).SerializeToString()
        session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
        (columns,) = session.run(None, {node.input[0]: np.eye(layer.in_features, dtype=np.float32)})
        ours = layer.dequantise().double().numpy()
        far = np.abs(columns.T.astype(np.float64) - ours).max() / np.abs(ours).max()
        compared("onnxruntime", "matrices; relative", far)
        assert far <= 1e-6
