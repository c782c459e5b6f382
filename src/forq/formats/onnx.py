"""ONNX: a graph whose MatMulNBits nodes hold codes and scales; it is computed by onnxruntime, whole.

    B            uint8 (out, groups, block_size·bits/8)   packed along in, lowest input in the lowest bits
    scales       float (out·groups,) or (out, groups)
    zero_points  uint8 (out, ⌈groups·bits/8⌉), packed like B; 2^(bits − 1) where there is none

The operator is of the domain com.microsoft; onnxruntime's own quantizer writes it, and the exports on the hub called
``model_q4.onnx`` hold it. Nodes inside other nodes (the branches of an If) are not looked at.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.graph import Node
from forq.errors import FormatError
from forq.formats.base import About, Format
from forq.layers.codes import pack, unpack
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts, ZeroPoints
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype

OP, DOMAIN = "MatMulNBits", "com.microsoft"
_BITS = (2, 4, 8)
_SCALE_DTYPES = (torch.float32, torch.float16)


class ONNX(Format):
    """MatMulNBits nodes of a graph, whose inputs are codes, scales and zero points."""

    about = About(
        title="ONNX (MatMulNBits)",
        bits="2, 4, 8",
        moves=("scales", "codes", "zeros"),
        exported="the same file (its external data beside it); scales are rounded to its dtype",
        library="onnxruntime 1.31.1",
        layout=(
            "B            uint8 (out, groups, block_size·bits/8), packed along in",
            "scales       float32 or float16 (out·groups,) or (out, groups)",
            "zero_points  uint8 (out·⌈groups·bits/8⌉,), optional",
        ),
        zero_points="Stored ones count; a node without any means 2^(bits − 1).",
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether the checkpoint is a graph with a MatMulNBits node."""
        return any(node.op == OP and node.domain == DOMAIN for node in nodes(ckpt))

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized products that can move, by the names of their nodes, checked from the headers alone.

        Nodes that share their scales count as one layer. A product whose scales other nodes read too (an embedding by
        GatherBlockQuantized, tied to the head) cannot move: see :meth:`fixed`.

        Raises:
            FormatError: tensors are missing, or contradict each other or the node's attributes.
        """
        return {name: spec for name, spec in _products(ckpt).items() if _alone(ckpt, spec.live[0].name)}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Integers and scales of a layer."""
        codes, scales, *zeros = spec.tensors
        stored = ckpt.read(codes).view(spec.out_features, -1)
        whole = stored[:, : spec.in_features * spec.bits // 8].contiguous()
        groups = -(-spec.in_features // spec.group_size)
        kind = zeros_dtype(spec.bits)
        if zeros:
            packed = ckpt.read(zeros[0]).view(spec.out_features, -1)
            points = unpack(packed, spec.bits)[:, :groups].t().to(kind).contiguous()
        else:
            points = torch.full((groups, spec.out_features), 1 << spec.bits - 1, dtype=kind)
        weight = QuantWeight(whole, points, spec.bits, spec.group_size)
        return Parts(weight, (ckpt.read(scales),), None, partial(by_group, rows=spec.out_features))

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes | None:
        """How the codes of a layer are packed; None where other nodes read them too."""
        name, scales, *_ = spec.tensors
        if not _alone(ckpt, name, scales):
            return None
        shape = ckpt.info[name].shape

        def packed(codes: Tensor) -> Tensor:
            if codes.numel() == ckpt.info[name].nbytes:
                return codes.clone().view(shape)
            whole = ckpt.read(name).view(spec.out_features, -1)  # what fills up its last groups stays
            whole[:, : codes.shape[1]] = codes
            return whole.view(shape)

        return FiledCodes(name, torch.uint8, spec.shape, spec.bits, packed)

    def zero_points(self, ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints | None:
        """How the zero points of a layer are packed."""
        if spec.zeros is None:
            return None
        name, shape = spec.zeros, ckpt.info[spec.zeros].shape

        def packed(points: Tensor) -> Tensor:
            whole = unpack(ckpt.read(name).view(spec.out_features, -1), spec.bits)  # what fills up its last bytes stays
            whole[:, : len(points)] = points.t()
            return pack(whole, spec.bits).view(shape)

        return ZeroPoints(name, (0, (1 << spec.bits) - 1), torch.uint8, packed)

    def fixed(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized products that cannot move, since other nodes than products read their scales."""
        return {name: spec for name, spec in _products(ckpt).items() if not _alone(ckpt, spec.live[0].name)}

    def unlike(self, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
        """Products whose inputs the file lets the runtime round, and products that cannot move."""
        found = []
        levels = sorted({node.ints.get("accuracy_level", 0) for node in nodes(ckpt) if node.op == OP} - {0, 1})
        if levels:
            found.append(
                "The file lets onnxruntime round what enters a product (accuracy_level "
                f"{', '.join(map(str, levels))}); "
                "forq tunes and scores at level 0, in float32, and the saved file asks for what it asked for."
            )
        for name, spec in self.fixed(ckpt).items():
            others = sorted({node.op for node in _readers(ckpt, spec.live[0].name)} - {OP}) or [OP]
            found.append(
                f"The layer {name} stands still and the rest tunes: its scales {spec.live[0].name} are also read by "
                f"{', '.join(others)}."
            )
        return tuple(found)


format = ONNX()


def nodes(ckpt: Checkpoint) -> list[Node]:
    """The graph's nodes; none where the checkpoint is not a graph."""
    return [] if ckpt.graph is None else list(ckpt.graph.nodes)


def _products(ckpt: Checkpoint) -> dict[str, LayerSpec]:
    found: dict[str, LayerSpec] = {}
    ours = [node for node in nodes(ckpt) if node.op == OP and node.domain == DOMAIN]
    often, scales = Counter(node.name for node in ours), set()
    for node in ours:
        name = node.name if node.name and often[node.name] == 1 else node.outputs[0] if node.outputs else ""
        spec = _spec(ckpt, name, node)
        if spec.live[0].name not in scales:
            scales.add(spec.live[0].name)
            found[name] = spec
    return found


def _alone(ckpt: Checkpoint, name: str, scales: str | None = None) -> bool:
    """Whether a tensor is read by products with these scales and by nothing else; None: whether it is such scales."""
    want = (scales or name,)
    return all(node.op == OP and node.domain == DOMAIN and node.inputs[2:3] == want for node in _readers(ckpt, name))


def _readers(ckpt: Checkpoint, name: str) -> list[Node]:
    return [node for node in nodes(ckpt) if name in node.inputs]


def by_group(scales: Tensor, rows: int) -> Tensor:
    """Scales as the file keeps them, output by output, as (groups, out): a view."""
    return scales.view(rows, -1).t()


def _spec(ckpt: Checkpoint, name: str, node: Node) -> LayerSpec:
    def whole(what: str, usual: int | None = None) -> int:
        found = node.ints.get(what, usual)
        if type(found) is not int or not 0 < found < 1 << 32:
            raise FormatError(f"{ckpt.path}: {name}: expected a positive whole number {what}, found {found!r}")
        return found

    columns, rows, bits, size = whole("K"), whole("N"), whole("bits", 4), whole("block_size")
    if bits not in _BITS or size < 16 or size & size - 1 or columns * bits % 8:
        raise FormatError(
            f"{ckpt.path}: {name}: expected 2, 4 or 8 bits in blocks of a power of two from 16 on and inputs that fill "
            f"bytes, found {bits} bits, blocks of {size}, {columns} inputs"
        )
    given = [*node.inputs, *[""] * 6][:6]
    if given[4]:
        raise FormatError(f"{ckpt.path}: {name}: expected groups in order, found a g_idx, which is not supported")
    groups = -(-columns // size)
    bytes_of_zeros = -(-groups * bits // 8)

    def expect(place: int, sizes: tuple[tuple[int, ...], ...], dtypes: tuple[torch.dtype, ...]) -> torch.dtype:
        info = ckpt.info.get(given[place])
        what = ("", "B", "scales", "zero_points")[place]
        if info is None:
            raise FormatError(
                f"{ckpt.path}: {name}: expected {what} as an initialiser with its bytes end to end, found "
                f"{given[place]!r:.80}, which is none; export the model with constant weights"
            )
        if info.shape not in sizes or info.dtype not in dtypes:
            raise FormatError(
                f"{ckpt.path}: {given[place]}: expected {' or '.join(map(str, dtypes))} of shape "
                f"{' or '.join(map(str, sizes))} for {bits} bits and blocks of {size}, found {info.dtype} of shape "
                f"{info.shape}"
            )
        return info.dtype

    expect(1, ((rows, groups, size * bits // 8), (rows, groups * size * bits // 8)), (torch.uint8,))
    dtype = expect(2, ((rows * groups,), (rows, groups)), _SCALE_DTYPES)
    tensors, zeros = given[1:3], None
    if given[3]:
        expect(3, ((rows * bytes_of_zeros,), (rows, bytes_of_zeros)), (torch.uint8,))
        tensors, zeros = given[1:4], given[3] if _alone(ckpt, given[3], given[2]) else None
    scales = Live(given[2], dtype)
    return LayerSpec(name, columns, rows, bits, size, (scales,), None, tuple(tensors), zeros)
