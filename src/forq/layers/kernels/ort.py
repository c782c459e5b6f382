"""The ONNX Runtime kernel: its MatMulNBits operator, one session a layer; the scales are an input of the graph.

The operator's ``accuracy_level`` is 0, float32 throughout. Level 4 is twice as fast, but rounds the activations to 8
bits, and with scales as an input its results are wrong without an error (onnxruntime 1.31.1, relative error 1.0).

Memory. The runtime packs the codes again for its own loops. They are passed as external data in a file, which it maps,
packs and unmaps: 408 MB in all for 48 layers of 8 MB (386 MB) once the caller's codes are freed too
(:func:`forq.layers.heap.trim`; without it glibc keeps them in holes, up to twice the bytes). Passed as a tensor or from
memory, they would stay beside the packed ones: twice the bytes; inline in the graph, three times. Outputs are bound to
torch tensors: the runtime keeps outputs that it allocates itself, one a layer (97 MB in the same model).

There is no least size for ``auto``: a session's overhead is smaller than the reference kernel's (whole forwards of two
models of hidden size 128 and 256, one thread: 0.7 of the reference's time at 2 tokens, 0.9 at 1,024).
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
from forq.layers.kernels.ort_graph import CODES_FILE, graph_of, in_order
from forq.layers.weight import QuantWeight, Weight

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

_GROUPS = (16, 32, 64, 128, 256)
"""Group sizes the runtime has loops for."""


@cache
def missing() -> str | None:
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
    if low < 0 or high > 15:  # version 1 of GPTQ's format can hold 16, which does not fit into four bits
        return f"zero points from 0 to 15 are needed, found {low} to {high}"
    return missing()


class Kernel:
    """``x · wᵀ`` for one layer; holds the codes in the runtime's packing and nothing of the caller's.

    Args:
        weight: the integers; the caller may free them afterwards.
        level: the operator's accuracy_level; values other than 0 are for tests that show why it is 0.

    Raises:
        ConfigError: this kernel cannot compute the layer.
    """

    name = "ort"

    __slots__ = ("_binding", "_columns", "_most", "_order", "_rows", "_session")

    def __init__(self, weight: QuantWeight, level: int = 0) -> None:
        why = unfit(weight, weight.codes.device, torch.float32)
        if why is not None:
            raise ConfigError(f"kernel ort: {why}")
        self._rows, self._columns = weight.out_features, weight.in_features
        # Act-order: the inputs of a group are brought together once, and x is reordered in every forward.
        self._order = None if weight.group_of is None else weight.group_of.argsort(stable=True)
        codes = weight.codes if self._order is None else in_order(weight.codes, self._order)
        self._session = _session(weight, codes, level)
        self._binding = self._session.io_binding()
        self._most = 0

    def __deepcopy__(self, memo: dict[int, object]) -> Kernel:
        """For a copy of the model: the session never changes and is shared; its binding is not."""
        other = object.__new__(Kernel)
        other._rows, other._columns, other._order, other._most = self._rows, self._columns, self._order, self._most
        other._session, other._binding = self._session, self._session.io_binding()
        return other

    def matmul(self, x: Tensor, scales: Tensor) -> Tensor:
        """(..., in) float32 → (..., out) float32, with scales float32 (groups, out)."""
        flat = x.reshape(-1, self._columns)
        if not len(flat):  # the runtime refuses the address of an empty tensor
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
            # What a session allocates to keep in such a run is carved out of large freed buffers: without this every
            # layer left such a buffer behind, 340 MB of holes in a model of 46 MB of codes.
            self._most = len(flat)
            heap.trim()
        return y.view(*x.shape[:-1], self._rows)


def session(model: bytes | str, folder: str | Path, *, optimise: bool = True) -> InferenceSession:
    """A session on the CPU, with torch's threads and without an arena that would keep memory.

    Args:
        model: the model itself, or its path.
        folder: the model's external data lies there.
        optimise: whether onnxruntime may change the graph.
    """
    import onnxruntime as ort

    settings = options(folder)
    if not optimise:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def options(folder: str | Path) -> SessionOptions:
    """The options of every session; see :func:`session`."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.enable_cpu_mem_arena = False
    # One thread needs no pool; with more, the idle workers of a hundred sessions must sleep, not spin.
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    settings.log_severity_level = 4  # what it logs as an error it raises too
    return settings


def _session(weight: QuantWeight, codes: Tensor, level: int) -> InferenceSession:
    with tempfile.TemporaryDirectory(prefix="forq-", ignore_cleanup_errors=True) as folder:
        codes.contiguous().numpy().tofile(Path(folder) / CODES_FILE)
        return session(graph_of(weight, level), folder)


def _regular(weight: QuantWeight) -> bool:
    """Whether the inputs, in the order of their groups, fill groups of the full size."""
    if weight.in_features % weight.group_size:
        return False
    if weight.group_of is None:
        return True
    counts = torch.bincount(weight.group_of, minlength=weight.groups)
    return bool((counts == weight.group_size).all())
