"""A Llama as an ONNX graph, node by node, from the tensors of a transformers checkpoint: no exporter is needed.

Inputs are input_ids, attention_mask and position_ids, as optimum's exports have them; the output is logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from forq.layers.round_to_nearest import round_to_nearest

Linear = Callable[["Builder", str, str], str]
"""From a builder, a module's name and an input to the output of a node that multiplies by that module's weight."""


class Builder:
    """Nodes and initialisers in the making."""

    def __init__(self, dtype: type = np.float32) -> None:
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []
        self._held: set[str] = set()

    def add(self, op: str, inputs: Sequence[str], domain: str = "", name: str = "", **attributes: Any) -> str:
        """One node of one output; its name."""
        from onnx import helper

        made = name or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{made}_out"], made, domain=domain, **attributes))
        return f"{made}_out"

    def tensor(self, name: str, value: np.ndarray) -> str:
        """An initialiser; a name that is there already is the same tensor."""
        from onnx import numpy_helper

        if name not in self._held:
            self._held.add(name)
            self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def floats(self, name: str, value: np.ndarray) -> str:
        return self.tensor(name, value.astype(self.dtype))

    def ints(self, *values: int) -> str:
        return self.tensor("i" + "_".join(map(str, values)), np.array(values, np.int64))


def dense(tensors: Mapping[str, np.ndarray]) -> Linear:
    """Layers as plain products."""

    def multiply(build: Builder, module: str, x: str) -> str:
        weight = build.floats(f"{module}.weight", tensors[f"{module}.weight"].T)
        return build.add("MatMul", [x, weight], name=f"{module}.MatMul")

    return multiply


def rounded(tensors: Mapping[str, np.ndarray], group_size: int) -> Linear:
    """Layers as MatMulNBits nodes of 4 bits, each weight to its nearest."""

    def multiply(build: Builder, module: str, x: str) -> str:
        weight = torch.from_numpy(tensors[f"{module}.weight"])
        quantized, scales = round_to_nearest(weight, group_size, bits=4)
        rows, columns = weight.shape
        codes = quantized.codes.view(rows, columns // group_size, group_size // 2).numpy()
        given = [x, build.tensor(f"{module}.codes", codes), build.floats(f"{module}.scales", scales.t().numpy())]
        settings = {"K": columns, "N": rows, "bits": 4, "block_size": group_size}
        return build.add("MatMulNBits", given, domain="com.microsoft", name=module, **settings)

    return multiply


def llama(
    config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], linear: Linear, dtype: type = np.float32
) -> Any:
    """The ModelProto of a Llama; the head is a layer of its own, ``lm_head``, also where it is tied."""
    from onnx import TensorProto, helper

    build = Builder(dtype)
    heads, width = config["num_attention_heads"], config["hidden_size"]
    kv_heads, size = config["num_key_value_heads"], width // heads
    angles = np.outer(
        np.arange(config["max_position_embeddings"]),
        config.get("rope_theta", 10000.0) ** (-np.arange(0, size, 2) / size),
    )
    turns = {kind: np.concatenate([fn(angles)] * 2, 1) for kind, fn in (("cos", np.cos), ("sin", np.sin))}

    def norm(name: str, x: str) -> str:
        mean = build.add("ReduceMean", [build.add("Mul", [x, x])], axes=[-1], keepdims=1)
        eps = build.floats("eps", np.array(config.get("rms_norm_eps", 1e-6)))
        root = build.add("Sqrt", [build.add("Add", [mean, eps])])
        return build.add(
            "Mul", [build.add("Div", [x, root]), build.floats(f"{name}.weight", tensors[f"{name}.weight"])]
        )

    def split(x: str, count: int) -> str:
        return build.add("Transpose", [build.add("Reshape", [x, build.ints(0, 0, count, size)])], perm=[0, 2, 1, 3])

    def rotated(x: str) -> str:
        half, last = size // 2, build.ints(3)
        low = build.add("Slice", [x, build.ints(0), build.ints(half), last])
        high = build.add("Slice", [x, build.ints(half), build.ints(size), last])
        turned = build.add("Concat", [build.add("Neg", [high]), low], axis=-1)
        return build.add("Add", [build.add("Mul", [x, cos]), build.add("Mul", [turned, sin])])

    def repeated(x: str) -> str:
        if heads == kv_heads:
            return x
        some = build.add("Unsqueeze", [x, build.ints(2)])
        many = build.add("Tile", [some, build.ints(1, 1, heads // kv_heads, 1, 1)])
        shape = build.add("Concat", [build.ints(0), build.ints(heads), build.ints(-1), build.ints(size)], axis=0)
        return build.add("Reshape", [many, shape])

    cos, sin = (
        build.add("Unsqueeze", [build.add("Gather", [build.floats(kind, table), "position_ids"]), build.ints(1)])
        for kind, table in turns.items()
    )
    # A token sees those before it that the mask leaves.
    length = build.add("Gather", [build.add("Shape", ["input_ids"]), build.tensor("one", np.array(1, np.int64))])
    zero, one = build.tensor("zero", np.array(0, np.int64)), build.tensor("one", np.array(1, np.int64))
    places = build.add("Range", [zero, length, one])
    before = build.add(
        "LessOrEqual",
        [build.add("Unsqueeze", [places, build.ints(0)]), build.add("Unsqueeze", [places, build.ints(1)])],
    )
    given = build.add("Unsqueeze", [build.add("Cast", ["attention_mask"], to=TensorProto.BOOL), build.ints(1, 2)])
    seen = build.add("And", [before, given])
    hidden = build.floats("hidden", np.array(-1e4))
    shown = build.floats("shown", np.array(0.0))
    bias = build.add("Where", [seen, shown, hidden])
    root = build.floats("root", np.array(size**-0.5))

    x = build.add(
        "Gather", [build.floats("model.embed_tokens.weight", tensors["model.embed_tokens.weight"]), "input_ids"]
    )
    for number in range(config["num_hidden_layers"]):
        block = f"model.layers.{number}"
        h = norm(f"{block}.input_layernorm", x)
        q, k, v = (linear(build, f"{block}.self_attn.{kind}_proj", h) for kind in "qkv")
        q, k, v = rotated(split(q, heads)), repeated(rotated(split(k, kv_heads))), repeated(split(v, kv_heads))
        scores = build.add("MatMul", [build.add("Mul", [q, root]), build.add("Transpose", [k], perm=[0, 1, 3, 2])])
        mixed = build.add("MatMul", [build.add("Softmax", [build.add("Add", [scores, bias])], axis=-1), v])
        joined = build.add("Reshape", [build.add("Transpose", [mixed], perm=[0, 2, 1, 3]), build.ints(0, 0, width)])
        x = build.add("Add", [x, linear(build, f"{block}.self_attn.o_proj", joined)])
        h = norm(f"{block}.post_attention_layernorm", x)
        gate, up = linear(build, f"{block}.mlp.gate_proj", h), linear(build, f"{block}.mlp.up_proj", h)
        silu = build.add("Mul", [gate, build.add("Sigmoid", [gate])])
        x = build.add("Add", [x, linear(build, f"{block}.mlp.down_proj", build.add("Mul", [silu, up]))])
    linear(build, "lm_head", norm("model.norm", x))
    build.nodes[-1].output[0] = "logits"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = ("input_ids", "attention_mask", "position_ids")
    graph = helper.make_graph(
        build.nodes,
        "llama",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"]) for name in names],
        [helper.make_tensor_value_info("logits", kind, ["rows", "length", config["vocab_size"]])],
        build.initialisers,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)
