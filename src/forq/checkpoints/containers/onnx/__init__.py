"""An ONNX file as a checkpoint. Its initialisers are the tensors, also those in external data files."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from forq.checkpoints import signature as _signature
from forq.checkpoints.containers.onnx import graph as _onnx_graph
from forq.checkpoints.containers.onnx.graph import Initialiser
from forq.checkpoints.contents import BESIDE, Contents
from forq.checkpoints.json_file import read_json
from forq.checkpoints.tensor import TensorInfo
from forq.errors import FormatError

DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    16: torch.bfloat16,
}
"""Dtypes by their numbers in TensorProto.DataType."""

NIBBLES = (21, 22)
"""Numbers of uint4 and int4: two codes a byte, the first in the lower bits. They are read as a row of bytes."""


def contents(path: Path) -> Contents:
    """Read the contents of an ONNX file; the graph itself is ``values["graph"]``.

    config.json and tokenizer lie beside the file. If the file's folder is called ``onnx``, as in exports
    on the hub, they may lie in the parent folder, which then is the checkpoint's folder.

    Raises:
        FormatError: the file or its external data are damaged, or the data lie outside the folder.
    """
    graph = _onnx_graph.read(path)
    above = path.parent.name == "onnx" and (path.parent.parent / "config.json").is_file()
    folder = path.parent.parent if above and not (path.parent / "config.json").is_file() else path.parent
    prefix = "" if folder == path.parent else "onnx/"
    info: dict[str, TensorInfo] = {}
    # Beside MatMulNBits nothing reads them, and the digests of such checkpoints, which journals name, are without them.
    nibbles = () if any(node.op == "MatMulNBits" for node in graph.nodes) else NIBBLES
    files = [prefix + path.name]
    for name, tensor in graph.initialisers.items():
        source = path if not tensor.file else _external(path, tensor.file)
        if prefix + tensor.file not in files and tensor.file:
            files.append(prefix + tensor.file)
        if tensor.kind not in (*DTYPES, *nibbles) or (tensor.nbytes < 0 and not tensor.file):
            continue  # texts, and integers stored as varints: they are never trained
        info[name] = _info(path, tensor, source, files[0] if not tensor.file else prefix + tensor.file)
    files += sorted(file.name for file in folder.iterdir() if file.suffix in BESIDE and file.is_file())
    return Contents(_config(folder), dict(sorted(info.items())), tuple(files), values={"graph": graph}, folder=folder)


def _info(path: Path, tensor: Initialiser, source: Path, file: str) -> TensorInfo:
    dtype, shape = DTYPES.get(tensor.kind, torch.uint8), tensor.shape
    if tensor.kind in NIBBLES:
        shape = (-(-math.prod(shape) // 2),)
    nbytes, size = math.prod(shape) * dtype.itemsize, source.stat().st_size
    if tensor.nbytes not in (nbytes, -1) or tensor.start + nbytes > size:
        _signature.check(source, "ONNX")
        raise FormatError(
            f"{path}: {tensor.name}: expected {nbytes} bytes for {dtype} of shape {shape} from byte "
            f"{tensor.start} on, found {tensor.nbytes if tensor.nbytes >= 0 else size - tensor.start} in {source.name} "
            f"of {size}; the file is truncated or damaged: download it again"
        )
    return TensorInfo(dtype, shape, file, tensor.start, nbytes)


def _external(path: Path, name: str) -> Path:
    """The path of an external data file.

    Raises:
        FormatError: the file is missing, or lies outside the model's folder, for example behind a link.
    """
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name or not parts:
        raise FormatError(f"{path}: expected external data in the model's folder, found {name!r:.80}")
    file = path.parent / name
    # Files of a hub snapshot are links into a common folder, where the data lie beside the model.
    roots = path.parent.resolve(), path.resolve().parent
    if not any(file.resolve().is_relative_to(root) for root in roots):
        raise FormatError(f"{path}: expected external data in the model's folder, found a link out of it, {name!r:.80}")
    if not file.is_file():
        raise FormatError(
            f"{path}: expected the external data {name!r:.80} that it names, found none; download it again"
        )
    return file


def _config(folder: Path) -> dict[str, object]:
    """The folder's config.json, or a minimal configuration if there is none, with what onnxruntime-genai says."""
    if (path := folder / "config.json").is_file():
        return read_json(path)
    plain: dict[str, object] = {"model_type": "onnx"}
    if (path := folder / "genai_config.json").is_file():
        model = read_json(path).get("model")
        limit = model.get("context_length") if isinstance(model, dict) else None
        plain |= {"max_position_embeddings": limit} if type(limit) is int and limit > 0 else {}
    return plain
