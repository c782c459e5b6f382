"""The ONNX Runtime kernel: its MatMulNBits operator, one session a layer, scales an input of the graph.

The operator's ``accuracy_level`` is 0, float32 throughout. Level 4, twice as fast, rounds the activations to 8 bits,
and with scales as an input its results are wrong without an error (onnxruntime 1.31.1, relative error 1.0).

Memory. The runtime packs the codes anew for its own loops. They are handed over as external data in a file, which it
maps, packs and lets go: 408 MB in all for 48 layers of 8 MB (386 MB) with the caller's codes let go too
(:func:`forq.layers.heap.trim`: left alone, glibc keeps them in holes, up to twice the bytes). Handed over as a tensor
or from memory they would stay beside the packed ones, twice the bytes; inline in the graph, three times. Outputs are
bound to tensors of torch: those the runtime allocates it keeps, one a layer (97 MB in the same model).

Small layers take it too: a session's overhead is less than the reference's, so that ``auto`` knows no least size
(whole forwards of two models of hidden size 128 and 256, one thread: 0.7 of the reference's at 2 tokens, 0.9 at 1,024).
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from forq.errors import ConfigError
from forq.layers import heap
from forq.layers.weight import QuantWeight, Weight

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_GROUPS = (16, 32, 64, 128, 256)
"""Those the runtime has loops for."""
_FILE = "codes"


@cache
def _missing() -> str | None:
    """Why the runtime cannot be used on this machine at all, or None."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"onnx and onnxruntime are needed ({error}); pip install onnx onnxruntime"
    return None


def unfit(weight: Weight, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this kernel cannot compute a layer, or None where it can."""
    if not isinstance(weight, QuantWeight) or weight.levels is not None or weight.zeros.is_floating_point():
        return "codes that count, with whole zero points, are needed"
    if weight.bits != 4:
        return f"codes of 4 bits are needed, found {weight.bits}"
    if device.type != "cpu" or dtype != torch.float32:
        return f"float32 on a CPU is needed, found {dtype} on {device.type}"
    if weight.group_size not in _GROUPS:
        return f"groups of {', '.join(map(str, _GROUPS))} are needed, found {weight.group_size}"
    if weight.in_features % 2 or not _regular(weight):
        return "groups of equal size are needed"
    low, high = (int(value) for value in weight.zeros.aminmax())
    if low < 0 or high > 15:  # version 1 of GPTQ's format can say 16; in four bits it would spill into its neighbour
        return f"zero points from 0 to 15 are needed, found {low} to {high}"
    return _missing()


class Kernel:
    """``x · wᵀ`` for one layer; holds the codes in the runtime's packing and nothing of the caller's.

    Args:
        weight: the integers; may be let go afterwards.
        level: the operator's accuracy_level; every other than 0 is for tests that show why.

    Raises:
        ConfigError: the layer is none this kernel can compute.
    """

    name = "ort"

    __slots__ = ("_binding", "_columns", "_most", "_order", "_rows", "_session")

    def __init__(self, weight: QuantWeight, level: int = 0) -> None:
        why = unfit(weight, weight.codes.device, torch.float32)
        if why is not None:
            raise ConfigError(f"--kernel ort: {why}")
        self._rows, self._columns = weight.out_features, weight.in_features
        # Act-order: the inputs of a group are brought together once, and x follows them in every forward.
        self._order = None if weight.group_of is None else weight.group_of.argsort(stable=True)
        codes = weight.codes if self._order is None else _ordered(weight.codes, self._order)
        self._session = _session(weight, codes, level)
        self._binding = self._session.io_binding()
        self._most = 0

    def __deepcopy__(self, memo: dict[int, object]) -> Kernel:
        """For a copy of the model: the session never changes and is shared, what it is bound to is not."""
        other = object.__new__(Kernel)
        other._rows, other._columns, other._order, other._most = self._rows, self._columns, self._order, self._most
        other._session, other._binding = self._session, self._session.io_binding()
        return other

    def matmul(self, x: Tensor, scales: Tensor) -> Tensor:
        """(..., in) float32 → (..., out) float32, with scales float32 (groups, out)."""
        flat = x.reshape(-1, self._columns)
        if not len(flat):  # the runtime refuses an address where nothing lies
            return x.new_empty(*x.shape[:-1], self._rows)
        flat = flat.contiguous() if self._order is None else flat.index_select(1, self._order)
        by_row = scales.t().contiguous()
        y = torch.empty(len(flat), self._rows)
        bind = self._binding
        for name, tensor in (("x", flat), ("scales", by_row.view(-1))):
            bind.bind_input(name, "cpu", 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
        bind.bind_output("y", "cpu", 0, np.float32, tuple(y.shape), y.data_ptr())
        self._session.run_with_iobinding(bind)
        if len(flat) > 2 * self._most:
            # What a session makes to keep in such a run is carved out of the large buffers let go before: without this
            # every layer left one of those behind, 340 MB of holes in a model of 46 MB of codes.
            self._most = len(flat)
            heap.trim()
        return y.view(*x.shape[:-1], self._rows)


def session(model: bytes, folder: str | Path) -> InferenceSession:
    """A session on the CPU, with torch's threads and without an arena that would keep memory.

    Args:
        folder: the model's external data lies there.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = False
    # One thread takes none from a pool; with more, idle workers of a hundred sessions must sleep, not spin.
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.log_severity_level = 4  # what it refuses it raises too
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _session(weight: QuantWeight, codes: Tensor, level: int) -> InferenceSession:
    with tempfile.TemporaryDirectory(prefix="forq-", ignore_cleanup_errors=True) as folder:
        codes.contiguous().numpy().tofile(Path(folder) / _FILE)
        return session(_graph(weight, level), folder)


def _graph(weight: QuantWeight, level: int) -> bytes:
    """The model of one operator, its codes in a file of their own."""
    from onnx import TensorProto, helper

    rows, columns, groups = weight.out_features, weight.in_features, weight.groups
    codes = TensorProto(name="codes", data_type=TensorProto.UINT8, data_location=TensorProto.EXTERNAL)
    codes.dims.extend([rows, groups, weight.group_size // 2])
    codes.external_data.add(key="location", value=_FILE)
    tensors, names = [codes], ["x", "codes", "scales"]
    if weight.zero != 8:  # the operator's own where none is given
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


def _packed_zeros(weight: QuantWeight) -> bytes:
    """uint8 (out, ⌈groups / 2⌉), the lower nibble first."""
    zeros = weight.zeros.t().to(torch.uint8)
    if zeros.shape[1] % 2:
        zeros = torch.nn.functional.pad(zeros, (0, 1))
    return (zeros[:, 0::2] | zeros[:, 1::2] << 4).contiguous().numpy().tobytes()


def _regular(weight: QuantWeight) -> bool:
    """Whether the inputs, in the order of their groups, fill groups of the full size."""
    if weight.in_features % weight.group_size:
        return False
    if weight.group_of is None:
        return True
    counts = torch.bincount(weight.group_of, minlength=weight.groups)
    return bool((counts == weight.group_size).all())


def _ordered(codes: Tensor, order: Tensor) -> Tensor:
    """Packed codes with the inputs in another order."""
    whole = torch.stack((codes & 15, codes >> 4), dim=-1).view(len(codes), -1)[:, order]
    return whole[:, 0::2] | whole[:, 1::2] << 4
