"""Int8 graphs: what trains inside onnxruntime is what the saved file computes in a plain session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import forq
from forq.errors import FormatError
from forq.models.leaves import trainable
from forq.models.saved import write
from tests import edge_net
from tests.fixtures import onnx_int8

IMAGES = torch.from_numpy(edge_net.images(16))


@pytest.fixture(scope="module", params=edge_net.FORMS)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edge_net.quantized(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def qdq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edge_net.quantized(tmp_path_factory.mktemp("qdq"), "qdq")


def moved(model: Any, kinds: str) -> dict[str, torch.Tensor]:
    """Every leaf of some kinds at another point; what a save takes."""
    found = {}
    draw = torch.Generator().manual_seed(4)
    for leaf in trainable(model, kinds):
        here = leaf.read()
        if leaf.group == "codes":
            low, high = leaf.range
            leaf.write((here + torch.randint(-2, 3, here.shape, generator=draw)).clamp(low, high))
            found[leaf.name] = leaf.packed(leaf.storage)
        else:
            leaf.write(here * (1 + 0.2 * torch.rand(here.shape, generator=draw)))
            found[leaf.name] = leaf.read()
    return found


def bytes_of(path: Path) -> dict[str, bytes]:
    """Every initialiser's message; "" is the rest of the model."""
    model = onnx.load(str(path))
    found = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    return {**found, "": model.SerializeToString()}


@pytest.mark.parametrize("kinds", ["scales", "codes", "scales,codes", "activations", "biases"])
def test_a_saved_file_computes_in_a_plain_session_what_trained(file: Path, kinds: str, tmp_path: Path) -> None:
    model = forq.load(file, device="cpu")
    before = model(IMAGES)
    assert np.array_equal(before.numpy(), edge_net.run(file, IMAGES.numpy()))  # nothing moves: the file itself
    try:
        given = moved(model, kinds)
    except forq.ConfigError:
        pytest.skip(f"this form has no {kinds}")
    trained = model(IMAGES)
    assert model.training_session in ("fused", "as written") and not torch.equal(trained, before)
    write(model.checkpoint, given, tmp_path / "out")
    saved = tmp_path / "out" / file.name
    onnx.checker.check_model(onnx.load(str(saved)), full_check=True)
    plain = edge_net.run(saved, IMAGES.numpy())
    close = 0.0 if model.training_session == "fused" else 1e-5
    assert np.abs(plain - trained.numpy()).max() <= close * np.abs(plain).max()
    assert np.array_equal(forq.load(saved, device="cpu")(IMAGES).numpy(), plain)
    old, new = bytes_of(file), bytes_of(saved)
    changed = {name for name in old if old[name] != new[name]}
    following = {name for name in old if name.endswith(("bias_quantized", "bias_quantized_scale"))}
    assert set(given) <= changed <= set(given) | (set() if kinds in ("codes", "biases") else following)
    assert file.stat().st_size == saved.stat().st_size


def test_integer_graphs_run_fused(file: Path) -> None:
    model = forq.load(file, device="cpu")
    trainable(model, "scales")
    model(IMAGES)
    assert model.training_session == "fused"


def pooled(path: Path) -> Path:
    """Two products around a MaxPool, before and behind which activations are rounded at scales of equal value."""
    draw, held = np.random.default_rng(5), dict[str, np.ndarray]()
    nodes = [helper.make_node("QuantizeLinear", ["images", "in_scale", "zero"], ["q_in"], "q_in")]
    nodes.append(helper.make_node("DequantizeLinear", ["q_in", "in_scale", "zero"], ["x_in"], "dq_in"))
    held |= {"zero": np.uint8(0), "zero_weight": np.int8(0), "in_scale": np.float32(1 / 255)}
    for name, source, shape in (("a", "x_in", (4, 3, 3, 3)), ("b", "x_pool", (4, 4, 3, 3))):
        held[f"{name}.codes"] = draw.integers(-100, 101, shape).astype(np.int8)
        held[f"{name}.scales"] = np.float32(0.003)
        weight = [f"{name}.codes", f"{name}.scales", "zero_weight"]
        nodes.append(helper.make_node("DequantizeLinear", weight, [f"{name}.weight"], f"dq_{name}"))
        nodes.append(helper.make_node("Conv", [source, f"{name}.weight"], [name], name, pads=[1] * 4))
        for step, made in ((f"{name}_out", name), *([("pool", "pooled")] if name == "a" else [])):
            if made == "pooled":
                nodes.append(
                    helper.make_node("MaxPool", ["x_a_out"], ["pooled"], "p", kernel_shape=[2, 2], strides=[2, 2])
                )
            held[f"{step}_scale"] = np.float32(0.01)
            nodes.append(
                helper.make_node("QuantizeLinear", [made, f"{step}_scale", "zero"], [f"q_{step}"], f"q_{step}")
            )
            nodes.append(
                helper.make_node(
                    "DequantizeLinear", [f"q_{step}", f"{step}_scale", "zero"], [f"x_{step}"], f"dq_{step}"
                )
            )
    nodes.append(helper.make_node("GlobalAveragePool", ["x_b_out"], ["mean"], "mean"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["scores"], "flat"))
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    return edge_net.save(path, nodes, tensors, ["n", 3, 8, 8], {"scores": ["n", 4]})


def test_a_fused_graph_that_rests_on_two_scales_being_equal_is_not_trained(tmp_path: Path) -> None:
    path = pooled(tmp_path / "in" / "model.onnx")
    model = forq.load(path, device="cpu")
    leaves = {leaf.name: leaf for leaf in trainable(model, "activations")}
    leaf = leaves["pool_scale"]
    model(IMAGES)  # as a run begins: the two scales are still equal
    leaf.write(leaf.read() * 1.3)
    trained = model(IMAGES).numpy()
    assert model.training_session == "as written"
    write(model.checkpoint, {leaf.name: leaf.read()}, tmp_path / "out")
    plain = edge_net.run(tmp_path / "out" / path.name, IMAGES.numpy())
    assert np.abs(plain - trained).max() <= 0.02 * np.abs(plain).max()


def test_what_did_not_move_keeps_every_byte(file: Path, tmp_path: Path) -> None:
    model = forq.load(file, device="cpu")
    write(model.checkpoint, {leaf.name: leaf.read() for leaf in trainable(model, "scales")}, tmp_path / "out")
    assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_an_integer_bias_keeps_its_value_at_the_scale_that_the_fused_operator_takes(qdq: Path, tmp_path: Path) -> None:
    model = forq.load(qdq, device="cpu")
    (leaf,) = (leaf for leaf in trainable(model, "scales") if leaf.name == "a.weight_scale")
    new = leaf.read()
    new[1::2] *= 1.75
    write(model.checkpoint, {leaf.name: new}, tmp_path / "out")
    old, now = edge_net.initialisers(qdq), edge_net.initialisers(tmp_path / "out" / qdq.name)
    codes, scale, inputs = "a.bias_quantized", "a.bias_quantized_scale", "images_scale"
    assert np.array_equal(now[scale][1::2], (old[inputs] * new.numpy())[1::2])
    value, bias = old[codes] * old[scale].astype(np.float64), now[codes] * now[scale].astype(np.float64)
    assert np.all(np.abs(bias - value) <= 0.5 * now[scale] * (1 + 1e-6)) and not np.array_equal(old[codes], now[codes])
    assert np.array_equal(old[codes][::2], now[codes][::2]) and np.array_equal(old[scale][::2], now[scale][::2])
    # A session without fusions reads the stored scale of the bias, a fused one computes it: both have to agree.
    fused, written = (edge_net.run(tmp_path / "out" / qdq.name, IMAGES.numpy(), plain=p) for p in (True, False))
    assert np.abs(fused - written).max() < 0.05 * np.abs(written).max()


def scaled(source: Path, target: Path) -> Path:
    """The mistake that the rule avoids: a weight's scale moves, and its bias stays."""
    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        if tensor.name == "a.weight_scale":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.75), tensor.name))
    onnx.save(model, str(target))
    return target


def saved_at(source: Path, folder: Path, factor: float) -> Path:
    """The file with the scales of the first weight multiplied."""
    model = forq.load(source, device="cpu")
    (leaf,) = (leaf for leaf in trainable(model, "scales") if leaf.name == "a.weight_scale")
    write(model.checkpoint, {leaf.name: leaf.read() * factor}, folder)
    return folder / source.name


def fused_operators(path: Path, folder: Path) -> int:
    """How many integer products onnxruntime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(folder / "optimised.onnx")).graph
    return sum(node.op_type in ("QLinearConv", "QGemm") for node in graph.node)


def test_a_bias_that_stood_still_would_be_wrong_in_the_operator_form(tmp_path: Path) -> None:
    file = edge_net.quantized(tmp_path, "operators")
    right = edge_net.run(saved_at(file, tmp_path / "out", 1.75), IMAGES.numpy())
    wrong = edge_net.run(scaled(file, tmp_path / "wrong.onnx"), IMAGES.numpy())
    assert np.abs(right - wrong).max() > 0.02 * np.abs(right).max()


def test_a_bias_that_stood_still_would_cost_the_fusion_in_the_qdq_form(qdq: Path, tmp_path: Path) -> None:
    assert fused_operators(qdq, tmp_path) == fused_operators(saved_at(qdq, tmp_path / "out", 1.75), tmp_path) == 3
    assert fused_operators(scaled(qdq, tmp_path / "wrong.onnx"), tmp_path) < 3


def behind_dequantize(path: Path, op: str, codes: np.ndarray, kind: int, axis: int, **how: Any) -> Path:
    """A graph of one product whose weight goes through DequantizeLinear; ``block``: codes that share a scale."""
    block, shape = how.get("block", 0), codes.shape
    sizes = [size // block if place == axis else size for place, size in enumerate(shape)] if block else [shape[axis]]
    scales = (np.random.default_rng(1).random(sizes) * 0.02 + 0.01).astype(np.float32)
    weight = helper.make_tensor("codes", kind, shape, codes.reshape(-1).tolist())
    if kind in (TensorProto.INT4, TensorProto.UINT4):
        flat = codes.reshape(-1).astype(np.int64) & 15
        weight = helper.make_tensor(
            "codes", kind, shape, (flat[::2] | flat[1::2] << 4).astype(np.uint8).tobytes(), raw=True
        )
    else:
        weight = numpy_helper.from_array(codes, "codes")
    settings = {"axis": axis} | ({"block_size": block} if block else {})
    nodes = [helper.make_node("DequantizeLinear", ["codes", "scales"], ["weight"], "dequantize", **settings)]
    flat_input = "images"
    if op in ("MatMul", "Gemm"):
        nodes.append(helper.make_node("Flatten", ["images"], ["flat"], "flat"))
        flat_input = "flat"
    nodes.append(helper.make_node(op, [flat_input, "weight"], ["y"], "product", **how.get("settings", {})))
    nodes.append(helper.make_node("Flatten", ["y"], ["scores"], "out"))
    tensors = [weight, numpy_helper.from_array(scales, "scales")]
    width = 3 if op.startswith("Conv") else 4
    return edge_net.save(path, nodes, tensors, ["n", width, 4, 4], {"scores": ["n", "k"]}, opset=21)


FORMS: dict[str, tuple[str, tuple[int, ...], int, int, dict[str, Any]]] = {
    "Conv int8": ("Conv", (5, 3, 3, 3), TensorProto.INT8, 0, {}),
    "Conv int4": ("Conv", (4, 3, 3, 3), TensorProto.INT4, 0, {}),
    "ConvTranspose uint8": ("ConvTranspose", (3, 4, 2, 2), TensorProto.UINT8, 1, {}),
    "Gemm int8": ("Gemm", (6, 64), TensorProto.INT8, 0, {"settings": {"transB": 1}}),
    "MatMul uint4": ("MatMul", (64, 6), TensorProto.UINT4, 1, {}),
    "MatMul int4 by block": ("MatMul", (64, 6), TensorProto.INT4, 0, {"block": 16}),
}


@pytest.mark.parametrize("kinds", ["scales", "codes"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_of_every_width_and_operator(form: str, kinds: str, tmp_path: Path) -> None:
    op, shape, kind, axis, how = FORMS[form]
    low, high = {TensorProto.INT8: (-128, 128), TensorProto.UINT8: (0, 256), TensorProto.INT4: (-8, 8)}.get(
        kind, (0, 16)
    )
    dtype = np.uint8 if kind in (TensorProto.UINT8, TensorProto.UINT4) else np.int8
    codes = np.random.default_rng(2).integers(low, high, shape).astype(dtype)
    path = behind_dequantize(tmp_path / "in" / "model.onnx", op, codes, kind, axis, **how)
    model = forq.load(path, device="cpu")
    x = torch.rand(3, 3 if op.startswith("Conv") else 4, 4, 4, generator=torch.Generator().manual_seed(1))
    before = model(x)
    (layer,) = model.layers
    assert layer.filed_codes.range == ((0, 15) if low in (-8,) or high == 16 else (0, 255))
    (leaf,) = trainable(model, kinds)
    if kinds == "codes":
        assert torch.equal(leaf.packed(leaf.storage), model.checkpoint.read("codes"))
    given = moved(model, kinds)
    trained = model(x)
    assert not torch.equal(trained, before)
    write(model.checkpoint, given, tmp_path / "out")
    plain = edge_net.run(tmp_path / "out" / path.name, x.numpy())
    # A plain session makes MatMulNBits of a 4-bit product, which rounds its other input to 8 bits.
    close = 1e-2 if "4" in form and op == "MatMul" else 1e-5
    assert np.abs(plain - trained.numpy()).max() <= close * np.abs(plain).max()
    onnx.checker.check_model(onnx.load(str(tmp_path / "out" / path.name)))


def test_a_weight_whose_scales_are_shared_stands_still_and_it_is_said(qdq: Path, tmp_path: Path) -> None:
    model = onnx.load(str(qdq))
    held = edge_net.initialisers(qdq)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == "a.bias_quantized":
            assert held[node.input[1]].shape == held["a.weight_scale"].shape
            node.input[1] = "a.weight_scale"
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    loaded = forq.load(path, device="cpu")
    assert "a.weight_scale" not in {leaf.name for leaf in trainable(loaded, "scales")}
    (said,) = (sentence for sentence in loaded.unlike if "a.weight_scale" in sentence)
    assert said.startswith("The weight of a stands still")


def test_graphs_without_weights_that_can_move_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="found none: quantize it"):
        forq.load(edge_net.floating(tmp_path / "float.onnx"), device="cpu")
    node = helper.make_node("QAttention", ["images"], ["scores"], "x", domain="com.microsoft", num_heads=1)
    graph = helper.make_graph(
        [node], "net", [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(tmp_path / "q.onnx"))
    with pytest.raises(FormatError, match="QAttention, which forq does not read"):
        forq.load(tmp_path / "q.onnx", device="cpu")


def test_a_language_model_with_an_integer_bias_trains_what_its_file_computes(tmp_path: Path) -> None:
    model: Any = forq.load(onnx_int8.example(tmp_path / "in", head=True), device="cpu")
    ids = torch.randint(1, 64, (2, 7), generator=torch.Generator().manual_seed(3))
    before = model(ids).logits.clone()
    given = moved(model, "scales")
    trained = model(ids).logits.clone()
    write(model.checkpoint, given, tmp_path / "out")
    again: Any = forq.load(tmp_path / "out", device="cpu")
    assert (trained - before).abs().max() > 0.01
    assert (again(ids).logits - trained).abs().max() <= 1e-5 * trained.abs().max()


def integer_product(path: Path) -> Any:
    """The second QLinearConv, whose input an operator before it rounds."""
    nodes = [node for node in onnx.load(str(path)).graph.node if node.op_type == "QLinearConv"]
    return nodes[1]


def changed(source: Path, target: Path, **values: np.ndarray) -> Path:
    """A copy with other initialisers."""
    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    onnx.save(model, str(target))
    return target


def test_an_input_scale_stands_still_where_a_bias_that_depends_on_it_does(tmp_path: Path) -> None:
    source = edge_net.quantized(tmp_path, "operators")
    (node,) = (
        node for node in onnx.load(str(source)).graph.node if node.name.startswith("b") and "Conv" in node.op_type
    )
    inputs, scales = node.input[1], node.input[4]
    free = forq.load(source, device="cpu")
    assert inputs in {leaf.name for leaf in trainable(free, "activations")}
    model = onnx.load(str(source))
    model.graph.node.append(helper.make_node("Identity", [scales], ["read_too"], "read_too"))
    onnx.save(model, str(tmp_path / "model.onnx"))
    tied = forq.load(tmp_path / "model.onnx", device="cpu")
    assert any(sentence.startswith("The weight of b") for sentence in tied.unlike)
    assert inputs not in {leaf.name for leaf in trainable(tied, "activations")}


def test_zero_points_that_do_not_fit_the_outputs_are_refused(tmp_path: Path) -> None:
    source = edge_net.quantized(tmp_path, "operators")
    (node,) = (
        node for node in onnx.load(str(source)).graph.node if node.name.startswith("b") and "Conv" in node.op_type
    )
    path = changed(source, tmp_path / "model.onnx", **{node.input[5]: np.zeros(3, np.int8)})
    with pytest.raises(FormatError, match=r"expected zero points of shape \(8,\), found shape \(3,\)"):
        forq.load(path, device="cpu")


def test_external_data_behind_the_links_of_a_hub_snapshot(qdq: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    onnx.save_model(
        onnx.load(str(qdq)), str(blobs / "model.onnx"), save_as_external_data=True, location="data", size_threshold=8
    )
    for name, blob in (("model.onnx", "0a1b"), ("data", "2c3d")):
        (blobs / name).rename(blobs / blob)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", blob))
    model = forq.load(snapshot / "model.onnx", device="cpu")
    assert np.array_equal(model(IMAGES).numpy(), edge_net.run(qdq, IMAGES.numpy()))
    given = moved(model, "scales")
    trained = model(IMAGES).numpy()
    assert model.training_session == "fused"
    write(model.checkpoint, given, tmp_path / "out")
    again = forq.load(tmp_path / "out" / "model.onnx", device="cpu")
    assert np.array_equal(again(IMAGES).numpy(), trained)
