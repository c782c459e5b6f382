"""The ONNX graph of one layer for the ONNX Runtime kernel: a single MatMulNBits operator."""

from __future__ import annotations

import torch
from torch import Tensor

from forq.layers.weight import QuantWeight

CODES_FILE = "codes"
"""Name of the file beside the model that holds the codes."""


def graph_of(weight: QuantWeight, level: int) -> bytes:
    """The model as bytes; inputs x and scales, output y, the codes in :data:`CODES_FILE`.

    Args:
        level: the operator's accuracy_level.
    """
    from onnx import TensorProto, helper

    rows, columns, groups = weight.out_features, weight.in_features, weight.groups
    codes = TensorProto(name="codes", data_type=TensorProto.UINT8, data_location=TensorProto.EXTERNAL)
    codes.dims.extend([rows, groups, weight.group_size // 2])
    codes.external_data.add(key="location", value=CODES_FILE)
    tensors, names = [codes], ["x", "codes", "scales"]
    if weight.zero != 8:  # the operator's default zero point
        zeros = _packed_zeros(weight)
        tensors.append(helper.make_tensor("zeros", TensorProto.UINT8, [len(zeros)], zeros, raw=True))
        names.append("zeros")
    node = helper.make_node(
        "MatMulNBits",
        names,
        ["y"],
        domain="com.microsoft",
        K=columns,
        N=rows,
        bits=4,
        block_size=weight.group_size,
        accuracy_level=level,
    )
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "layer",
        [
            helper.make_tensor_value_info("x", floats, ["tokens", columns]),
            helper.make_tensor_value_info("scales", floats, [rows * groups]),
        ],
        [helper.make_tensor_value_info("y", floats, ["tokens", rows])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def in_order(codes: Tensor, order: Tensor) -> Tensor:
    """Packed 4-bit codes with the inputs in another order."""
    unpacked = torch.stack((codes & 15, codes >> 4), dim=-1).view(len(codes), -1)[:, order]
    return unpacked[:, 0::2] | unpacked[:, 1::2] << 4


def _packed_zeros(weight: QuantWeight) -> bytes:
    """uint8 (out, ⌈groups / 2⌉), the lower nibble first."""
    zeros = weight.zeros.t().to(torch.uint8)
    if zeros.shape[1] % 2:
        zeros = torch.nn.functional.pad(zeros, (0, 1))
    return (zeros[:, 0::2] | zeros[:, 1::2] << 4).contiguous().numpy().tobytes()
