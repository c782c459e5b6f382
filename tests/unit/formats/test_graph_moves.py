"""Integers of an ONNX graph: they become inputs when they are to move, and no run displaces the stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from forq.checkpoints import Checkpoint
from forq.coordinates.leaf import SparseLeaf
from forq.errors import FormatError
from forq.formats.onnx import DOMAIN, OP
from forq.inspection.memory import summary
from forq.layers.kernels import reference
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight, zeros_dtype
from forq.models.graph.session import Session
from forq.models.load import load
from forq.models.saved import write
from forq.models.space import space
from forq.scalars.moves import Move, Term
from tests.fixtures import onnx as form

IDS = torch.randint(1, 64, (3, 9), generator=torch.Generator().manual_seed(3))
PROBES = {"few": "sparse:0.01", "many": "uniform_grid:2"}
SHAPES = [None, *form.VARIANTS]


def example(folder: Path, shape: str | None = None) -> Path:
    return form.example(folder, **form.VARIANTS.get(shape or "", {}))


def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits.clone()
    return found


@pytest.mark.parametrize("given", [("codes",), ("scales", "codes"), ("scales", "codes", "zeros")], ids="+".join)
@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize(("size", "columns"), [(16, 64), (32, 100), (64, 80), (128, 512)])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_operator_is_right_with_integers_that_are_inputs(
    bits: int, size: int, columns: int, tokens: int, given: tuple[str, ...]
) -> None:
    """What onnxruntime is trusted with, held to the reference kernel; twice, as what was an input may not be kept."""
    draw, rows, groups = np.random.default_rng(bits + size), 24, -(-columns // size)
    names = ["codes", "scales", *(["zeros"] if "zeros" in given else [])]
    values: dict[str, np.ndarray] = {"x": draw.standard_normal((tokens, columns)).astype(np.float32)}
    kinds = {
        "x": TensorProto.FLOAT,
        "codes": TensorProto.UINT8,
        "scales": TensorProto.FLOAT,
        "zeros": TensorProto.UINT8,
    }
    values["scales"] = (draw.random((rows, groups)) * 0.05 + 0.01).astype(np.float32)
    sizes = {"codes": (rows, groups, size * bits // 8), "zeros": (rows, -(-groups * bits // 8))}
    values |= {name: draw.integers(0, 256, shape, np.uint8) for name, shape in sizes.items()}
    told = {"K": columns, "N": rows, "bits": bits, "block_size": size}
    graph = helper.make_graph(
        [helper.make_node(OP, ["x", *names], ["y"], domain=DOMAIN, **told)],
        "one",
        [helper.make_tensor_value_info(name, kinds[name], values[name].shape) for name in ("x", *given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [tokens, rows])],
        [numpy_helper.from_array(values[name], name) for name in names if name not in given],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    written = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    for _ in range(2):
        (y,) = session.run(None, {name: values[name] for name in ("x", *given)})
        codes = torch.from_numpy(values["codes"]).view(rows, -1)[:, : columns * bits // 8].contiguous()
        zeros = torch.full((groups, rows), 1 << bits - 1, dtype=zeros_dtype(bits))
        if "zeros" in given:
            parts = values["zeros"][..., None] >> np.arange(0, 8, bits, dtype=np.uint8) & ((1 << bits) - 1)
            zeros = torch.from_numpy(parts.reshape(rows, -1)[:, :groups].T.copy()).to(zeros_dtype(bits))
        weight, scales = QuantWeight(codes, zeros, bits, size), torch.from_numpy(values["scales"]).t()
        want = reference.matmul(torch.from_numpy(values["x"]), weight, scales, None, Scratch()).numpy()
        assert np.abs(y - want).max() <= 1e-5 * np.abs(want).max()
        values["codes"] = values["codes"] ^ 0x5A
        values["zeros"] = values["zeros"] ^ 0x11


@pytest.mark.parametrize("noise", PROBES.values(), ids=PROBES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_probe_shows_other_codes_and_leaves_the_stored_ones_alone(
    shape: str | None, noise: str, tmp_path: Path
) -> None:
    model: Any = load(example(tmp_path, shape), "cpu")
    moves = space(model, "codes", "cells")
    before, held = logits(model), {leaf.name: leaf.storage.clone() for leaf in moves.leaves}  # type: ignore[attr-defined]
    probe = Move((Term(77, 1.0, noise),))
    with moves.displaced(probe):
        away = logits(model)
        for leaf in moves.leaves:
            assert isinstance(leaf, SparseLeaf) and torch.equal(leaf.storage, held[leaf.name])
            assert (leaf.sparse is None) == (noise == PROBES["many"])
    assert not torch.equal(away, before) and torch.equal(logits(model), before)
    # The same codes stored.
    other: Any = load(tmp_path, "cpu")
    twin = space(other, "codes", "cells")
    assert twin.apply(probe).changed > 0
    assert torch.equal(logits(other), away)
    write(other.checkpoint, twin.exported(), tmp_path / "saved")
    # And in a file, where they are constants: another product of the runtime, rounded otherwise.
    near = 1e-3 if shape == "float16" else 1e-5
    assert (logits(load(tmp_path / "saved", "cpu")) - away).abs().max() <= near * away.abs().max()


@pytest.mark.parametrize("noise", PROBES.values(), ids=PROBES)
def test_the_return_is_exact_when_the_run_raises(noise: str, tmp_path: Path, monkeypatch: Any) -> None:
    model: Any = load(example(tmp_path), "cpu")
    moves = space(model, "codes", "cells")
    before, run = logits(model), Session.run

    def torn(self: Session, *given: Any) -> Any:
        run(self, *given)
        raise FormatError("torn")

    monkeypatch.setattr(Session, "run", torn)
    with pytest.raises(FormatError, match="torn"), moves.displaced(Move((Term(5, 1.0, noise),))):
        logits(model)
    monkeypatch.setattr(Session, "run", run)
    assert torch.equal(logits(model), before)


def test_only_what_is_to_move_is_an_input(tmp_path: Path) -> None:
    model: Any = load(example(tmp_path, "zeros"), "cpu")
    scales = {name for name in model.checkpoint.info if name.endswith("_scales")}
    assert model._opened().live == scales
    space(model, "scales")
    first = model._opened()
    assert first.live == scales
    codes = {leaf.name for leaf in space(model, "codes", "cells").leaves}
    assert model._opened().live == scales | codes
    space(model, "codes,zeros", "cells")
    zeros = {name for name in model.checkpoint.info if name.endswith("_zeros")}
    last = model._opened()
    assert last.live == scales | codes | zeros and model._opened() is last


@pytest.mark.parametrize("kind", ["codes", "zeros", "codes,zeros"])
@pytest.mark.parametrize("shape", ["zeros", "ragged", "external", "2-bit"])
def test_a_save_changes_bytes_of_what_moved_and_no_others(shape: str, kind: str, tmp_path: Path) -> None:
    base = example(tmp_path / "base", shape)
    model: Any = load(base, "cpu")
    moves = space(model, kind, "cells")
    moves.apply(Move((Term(1, 1.0, "uniform_grid:1"),)))
    write(model.checkpoint, moves.exported(), tmp_path / "out")
    ckpt = Checkpoint.open(base)
    names = {leaf.name for leaf in moves.leaves}
    for path in base.iterdir():
        old, new = (np.frombuffer((at / path.name).read_bytes(), np.uint8) for at in (base, tmp_path / "out"))
        assert len(old) == len(new)
        still = np.ones(len(old), bool)
        for name in names:
            info = ckpt.info[name]
            if info.file == path.name:
                still[info.start : info.start + info.nbytes] = False
        assert (old[still] == new[still]).all()
    after = Checkpoint.open(tmp_path / "out")
    assert {name for name in ckpt.info if not torch.equal(ckpt.read(name), after.read(name))} == names


def test_what_fills_up_groups_and_bytes_stays(tmp_path: Path) -> None:
    """64 inputs in blocks of 128: half of every row of B is filling, and at 4 bits half of every row of zero points."""
    base = form.example(tmp_path / "base", block_size=128, zeros=True)
    model: Any = load(base, "cpu")
    moves = space(model, "codes,zeros", "cells")
    moves.apply(Move((Term(1, 1.0, "rademacher"),)))
    saved = moves.exported()
    ragged = 0
    for layer in model.layers:
        groups = -(-layer.in_features // 128)
        codes, zeros = layer.filed_codes.name, layer.zero_points.name
        old, new = (one.view(layer.out_features, -1) for one in (model.checkpoint.read(codes), saved[codes]))
        width = layer.in_features // 2
        assert torch.equal(old[:, width:], new[:, width:]) and not torch.equal(old, new)
        ragged += old.shape[1] > width
        old, new = (one.view(layer.out_features, -1) for one in (model.checkpoint.read(zeros), saved[zeros]))
        assert not torch.equal(old, new)
        if groups % 2:
            assert torch.equal(old[:, -1] >> 4, new[:, -1] >> 4)
    assert ragged
    write(model.checkpoint, saved, tmp_path / "out")
    again: Any = load(tmp_path / "out", "cpu")
    assert (logits(again) - logits(model)).abs().max() <= 1e-5 * logits(model).abs().max()


@pytest.mark.parametrize(("place", "kind"), [(1, "codes"), (3, "zeros")])
def test_integers_that_two_layers_read_stand_still(place: int, kind: str, tmp_path: Path) -> None:
    path = form.example(tmp_path, zeros=True) / "model.onnx"
    model = onnx.load(str(path))
    one, two = (
        next(node for node in model.graph.node if node.name == f"model.layers.0.mlp.{name}_proj.MatMulNBits")
        for name in ("gate", "up")
    )
    two.input[place] = one.input[place]
    onnx.save_model(model, str(path))
    shared: Any = load(tmp_path, "cpu")
    leaves = space(shared, kind, "cells").leaves
    assert one.input[place] not in {leaf.name for leaf in leaves} and len(leaves) == len(shared.layers) - 2
    assert summary(shared.checkpoint).moves[kind] == sum(leaf.read().numel() for leaf in leaves)
