"""Networks that end in a Softmax: the loss takes the logarithms of their probabilities, seen from the graph alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import forq
from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx import graph as graphs
from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import ConfigError
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from forq.tasks import account
from tests import edge_net
from tests.unit.tasks.test_classify_images import arrays

EIGHT, SIXTEEN = 2.0**-9, 2.0**-17


def ended(folder: Path, *ends: str, zero: int = TensorProto.UINT8) -> Path:
    """The tiny quantized classifier, with more operators behind its scores."""
    path = edge_net.quantized(folder, "qdq")
    model = onnx.load(str(path))
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["logits" if name == output.name else name for name in node.output]
    step = {TensorProto.UINT8: 2.0**-8, TensorProto.UINT16: 2.0**-16}[zero]
    kind = helper.tensor_dtype_to_np_dtype(zero)
    model.graph.initializer.extend([
        numpy_helper.from_array(np.array(step, np.float32), "step"), numpy_helper.from_array(np.array(0, kind), "zero"),
        numpy_helper.from_array(np.array([-1, 4], np.int64), "shape"),
    ])  # fmt: skip
    more = {"QuantizeLinear": ["step", "zero"], "DequantizeLinear": ["step", "zero"], "Reshape": ["shape"]}
    at = "logits"
    for place, op in enumerate(ends):
        to = output.name if place == len(ends) - 1 else f"end{place}"
        settings = {"axis": 1} if op.endswith("Softmax") else {}
        model.graph.node.append(helper.make_node(op, [at, *more.get(op, [])], [to], f"end{place}", **settings))
        at = to
    model.opset_import[0].version = 21
    onnx.save(model, str(path))
    return path


def opened(path: Path, data: Path) -> Any:
    return open_task(TaskConfig(name="classify-images", data=str(data)), Checkpoint.open(path), 0)


@pytest.mark.parametrize(
    ("ends", "zero", "least"),
    [
        (["Softmax"], TensorProto.UINT8, 2.0**-126),
        (["Softmax", "Identity", "Reshape"], TensorProto.UINT8, 2.0**-126),
        (["Softmax", "QuantizeLinear", "DequantizeLinear"], TensorProto.UINT8, EIGHT),
        (["Softmax", "QuantizeLinear", "DequantizeLinear"], TensorProto.UINT16, SIXTEEN),
        (["LogSoftmax"], TensorProto.UINT8, None),
        (["Softmax", "Log"], TensorProto.UINT8, None),
        (["Identity"], TensorProto.UINT8, None),
    ],
)
def test_the_graph_says_what_its_scores_are(ends: list[str], zero: int, least: float | None, tmp_path: Path) -> None:
    path = ended(tmp_path, *ends, zero=zero)
    given = GraphImages.of(graphs.read(path), path.parent)
    assert given.probabilities == ({} if least is None else {"scores": least})


def test_a_loss_of_probabilities_is_that_of_their_logits(tmp_path: Path) -> None:
    data = arrays(tmp_path / "a.npz")
    plain, soft, log = (ended(tmp_path / end, end) for end in ("Identity", "Softmax", "LogSoftmax"))
    models = [forq.load(path, device="cpu") for path in (plain, soft, log)]
    tasks = [opened(path, data) for path in (plain, soft, log)]
    losses = [task.evaluate(model, "test").loss for task, model in zip(tasks, models, strict=True)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    batch = tasks[1].batch(0)
    given = torch.from_numpy(edge_net.run(soft, tasks[1].numbers(batch.levels).numpy()))
    assert torch.allclose(tasks[1].logits(models[1], batch).softmax(1), given, atol=1e-6)
    answer = tasks[1].answers(models[1], batch)[0].row
    assert answer["scores"] == answer["outputs"]["scores"] == given[0].tolist()


@pytest.mark.parametrize("ends", [["Sigmoid"], ["Sigmoid", "QuantizeLinear", "DequantizeLinear"], ["HardSigmoid"]])
def test_classes_that_do_not_exclude_each_other_are_refused(ends: list[str], tmp_path: Path) -> None:
    data, path = arrays(tmp_path / "a.npz"), ended(tmp_path, *ends)
    with pytest.raises(ConfigError, match=r"scores: expected scores of which a softmax .*, found those of a Sigmoid"):
        opened(path, data)
    rewarded = TaskConfig(name="classify-images", data=str(data), reward=f"{__name__}:nothing")
    assert open_task(rewarded, Checkpoint.open(path), 0).evaluate(forq.load(path, device="cpu"), "test").rows


def nothing(*answered: Any) -> float:
    """A reward."""
    return 0.0


def test_a_probability_of_0_costs_a_finite_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = arrays(tmp_path / "a.npz")
    path = ended(tmp_path, "Softmax", "QuantizeLinear", "DequantizeLinear")
    task, model = opened(path, data), forq.load(path, device="cpu")
    monkeypatch.setattr(type(task), "_run", lambda *_: torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    batch = task.pack([row for row in task.rows["train"] if row.label == 0][:1])
    assert task.loss(model, batch) == pytest.approx(np.log(512 + 3), rel=1e-4)


def test_a_run_says_that_the_network_gives_probabilities_and_scores_its_file_alike(tmp_path: Path) -> None:
    path, data = ended(tmp_path, "Softmax"), arrays(tmp_path / "a.npz", 80)
    task = opened(path, data)
    assert task.describe()["probabilities"] is True
    assert "the network ends in a Softmax" in account(task).line
    plain = opened(ended(tmp_path / "plain", "Identity"), data)
    assert "probabilities" not in plain.describe() and "Softmax" not in account(plain).line
    forq.tune(
        path, "classify-images", str(data), recipe="qzo-shared", move="scales", steps=2, out=tmp_path / "run",
        settings={"task": {"batch_rows": 8}},
    )  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["served"]["loss"] == pytest.approx(result["validation"]["after"]["loss"], rel=1e-5)
