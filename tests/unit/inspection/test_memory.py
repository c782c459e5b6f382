"""What inspecting counts is what moves, and the memory it promises is what a loaded model holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError
from forq.inspection.memory import summary
from forq.layers.linear import QuantLinear
from forq.models.convert.quantize import quantize
from forq.models.load import load
from forq.models.space import space
from tests import tiny_checkpoints
from tests.fixtures import example
from tests.tiny_checkpoints import KINDS

MOVES = ("scales", "zeros", "norms", "biases", "embeddings", "dense")


@pytest.fixture(scope="module", params=sorted(KINDS))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A float checkpoint and the same quantized."""
    where = tmp_path_factory.mktemp(request.param)
    source = tiny_checkpoints.folder(where / "float", request.param, torch.float16)
    return source, quantize(source, where / "quantized", group_size=32).path


@pytest.mark.parametrize("quantized", [False, True])
def test_what_can_move_is_what_moves(both: tuple[Path, Path], quantized: bool) -> None:
    model = load(both[quantized], device="cpu")
    found = summary(Checkpoint.open(both[quantized])).moves
    assert {"norms", "embeddings"} <= set(found) and ("scales" in found) is quantized
    for move in MOVES:
        if move in found:
            assert found[move] == space(model, move).size
        else:
            with pytest.raises(ConfigError, match=f"expected a model with {move} to move"):
                space(model, move)


def test_the_memory_of_forq_is_what_the_model_holds(both: tuple[Path, Path]) -> None:
    model = load(both[1], device="cpu")
    layers = [module for module in model.modules() if isinstance(module, QuantLinear)]
    loaded = sum(tensor.nbytes for layer in layers for tensor in (layer.weight.codes, layer.weight.zeros, layer.scales))
    loaded += sum(parameter.nbytes for parameter in model.parameters())
    masters = sum(layer.scales.nbytes for layer in layers)
    buffer = 4 * max(layer.in_features * layer.out_features for layer in layers)
    estimate = {row.method: row for row in summary(Checkpoint.open(both[1])).estimates}["forq"]
    assert estimate.memory_bytes == loaded + masters + buffer and "fp32" in estimate.made_of


@pytest.mark.parametrize(
    ("form", "variant"), [("aqlm", None), ("aqlm", "wide-index"), ("hqq", None), ("hqq", "axis-0"), ("bnb8", None)]
)
def test_codebooks_and_continuous_zero_points_count(form: str, variant: str | None, tmp_path: Path) -> None:
    """Codebooks and continuous zero points are held as float32; zero points of 8 bits take two bytes."""
    folder = example(form, tmp_path, variant)
    layers = [module for module in load(folder, device="cpu").modules() if isinstance(module, QuantLinear)]
    found = summary(Checkpoint.open(folder))
    loaded = 4 * max(layer.in_features * layer.out_features for layer in layers)
    for layer in layers:
        zeros = getattr(layer.frozen, "zeros", None)
        loaded += layer.frozen.codes.nbytes + (
            zeros.nbytes if zeros is not None and not zeros.is_floating_point() else 0
        )
        loaded += layer.scales.nbytes + sum(tensor.nbytes for tensor in layer.live.values())
    floats = 4 * sum(found.moves[kind] for kind in ("norms", "embeddings", "dense"))
    estimate = {row.method: row for row in found.estimates}["forq"].memory_bytes
    assert estimate == pytest.approx(loaded + floats, rel=0.005)


@pytest.mark.parametrize("tied", [False, True])
def test_a_graph_counts_its_weights_once_and_no_tables(tied: bool, tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    folder = example("onnx", tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config))
    before = summary(Checkpoint.open(folder))
    vocabulary = config["vocab_size"] * config["hidden_size"]
    untied = summary(Checkpoint.open(untie(folder)))
    assert untied.parameters - before.parameters == (vocabulary if tied else 0)
    model = onnx.load(str(folder / "model.onnx"))
    names = ["cos_cache", "sin_cache"]
    tables = [numpy_helper.from_array(np.zeros((64, 4), np.float32), name) for name in names]
    model.graph.initializer.extend(tables)
    model.graph.node.append(helper.make_node("RotaryEmbedding", ["x", "position_ids", *names], ["y"]))
    onnx.save_model(model, str(folder / "model.onnx"))
    after = summary(Checkpoint.open(folder))
    assert after.parameters == untied.parameters and after.file_bytes == before.file_bytes + 2 * 64 * 4 * 4
    assert after.estimates[0].memory_bytes == 16 * after.parameters


def untie(folder: Path) -> Path:
    """The folder, its configuration not saying any more that head and embedding are one."""
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("nested", [False, True])
def test_the_description_of_a_save_is_for_this_file(nested: bool, tmp_path: Path) -> None:
    folder = example("bnb4", tmp_path, bnb_4bit_use_double_quant=nested)
    description = summary(Checkpoint.open(folder)).exported
    assert description.startswith("the same file") and ("no longer nested" in description) is nested
    assert "double quantization" not in description
