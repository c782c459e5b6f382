"""What inspecting a checkpoint lists as movable is what a loaded model offers, for every format and odd graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import helper

from forq.checkpoints import Checkpoint
from forq.coordinates.leaf import GROUPS
from forq.errors import ConfigError
from forq.inspection.memory import summary
from forq.models.load import load
from forq.models.space import space
from tests.fixtures import CASES, example
from tests.fixtures import onnx as graphs

IDS = torch.randint(1, 64, (2, 9), generator=torch.Generator().manual_seed(3))


def _changed(folder: Path, change: Any, **how: Any) -> Path:
    path = graphs.example(folder, **how) / "model.onnx"
    model = onnx.load(str(path))
    change(model.graph)
    onnx.save_model(model, str(path))
    return folder


def _embedding_of_the_head(graph: Any) -> None:
    """The embedding looked up in the head's own codes and scales, as exports with tied int4 embeddings have it."""
    node = next(node for node in graph.node if "model.embed_tokens.weight" in node.input)
    head = next(node for node in graph.node if node.output[0] == "logits")
    rows = next(one.i for one in head.attribute if one.name == "N")
    shape = helper.make_tensor("head_shape", onnx.TensorProto.INT64, [2], [rows, -1])
    graph.initializer.append(shape)
    flat = helper.make_node("Reshape", [head.input[1], "head_shape"], ["head_codes"])
    settings = {"gather_axis": 0, "quantize_axis": 1, "block_size": 16, "bits": 4}
    given = ["head_codes", node.input[1], head.input[2]]
    looked_up = helper.make_node(
        "GatherBlockQuantized", given, list(node.output), "embed", domain="com.microsoft", **settings
    )
    graph.node.remove(node)
    graph.node.insert(0, looked_up)
    graph.node.insert(0, flat)


def _scales_added_up(graph: Any) -> None:
    """Scales of one product read by an operator of floats too."""
    node = next(node for node in graph.node if node.op_type == "MatMulNBits")
    graph.node.insert(0, helper.make_node("ReduceSum", [node.input[2]], ["summed"], keepdims=0))


def _codes_shared(graph: Any) -> None:
    """Two products of the same codes, each with scales of its own."""
    nodes = [node for node in graph.node if node.op_type == "MatMulNBits"]
    q, o = (next(node for node in nodes if kind in node.name) for kind in ("q_proj", "o_proj"))
    o.input[1] = q.input[1]


def _scales_shared(graph: Any) -> None:
    """Two products of the same codes and scales: one layer."""
    _codes_shared(graph)
    nodes = [node for node in graph.node if node.op_type == "MatMulNBits"]
    q, o = (next(node for node in nodes if kind in node.name) for kind in ("q_proj", "o_proj"))
    o.input[2] = q.input[2]


ODD = {
    "embedding of the head": _embedding_of_the_head,
    "scales added up": _scales_added_up,
    "codes shared": _codes_shared,
    "scales shared": _scales_shared,
}


def agree(source: Path) -> None:
    """Hold inspect to load, kind by kind; a space opens what it moves, so that what stands behind it is run too."""
    listed, model = summary(Checkpoint.open(source)).moves, load(source, device="cpu")
    for kind in GROUPS:
        if kind in listed:
            moves = space(model, kind)
            assert moves.groups == (kind,) and moves.size == listed[kind]
        else:
            with pytest.raises(ConfigError, match=f"expected a model with {kind} to move"):
                space(model, kind)
    assert torch.isfinite(_output(model)).all()


def _output(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize(("name", "variant"), CASES, ids=lambda part: part or "plain")
def test_every_format(name: str, variant: str | None, tmp_path: Path) -> None:
    agree(example(name, tmp_path / "example", variant))


@pytest.mark.parametrize("odd", ODD)
def test_every_odd_graph(odd: str, tmp_path: Path) -> None:
    agree(_changed(tmp_path / "a", ODD[odd]))


def test_a_layer_that_shares_its_scales_with_the_embedding_stands_still_and_the_rest_moves(tmp_path: Path) -> None:
    before = summary(Checkpoint.open(graphs.example(tmp_path / "a")))
    source = _changed(tmp_path / "b", _embedding_of_the_head)
    found = summary(Checkpoint.open(source))
    head = 64 * 32 // 16
    assert found.moves["scales"] == before.moves["scales"] - head and found.layers == before.layers
    assert found.quantized == before.quantized
    model: Any = load(source, device="cpu")
    assert any("lm_head" in one and "GatherBlockQuantized" in one for one in model.unlike)
    assert found.unlike == model.unlike
    assert all("lm_head" not in leaf.name for leaf in space(model, "scales,codes").leaves)
