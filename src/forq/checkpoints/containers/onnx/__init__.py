"""An ONNX file as a checkpoint: its initialisers as tensors, those in files of external data too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from forq.checkpoints import signature as _signature
from forq.checkpoints.containers.onnx import graph as _onnx_graph
from forq.checkpoints.containers.onnx.graph import Graph, Initialiser
from forq.checkpoints.contents import BESIDE, Contents
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
"""Element types, by their numbers in TensorProto."""


def contents(path: Path) -> Contents:
    """What a file holds; the graph itself is ``values["graph"]``.

    Its config.json and tokenizer may lie beside it, or, where its folder is called ``onnx``, one above, as exports on
    the hub have them. Then that is the checkpoint's folder.

    Raises:
        FormatError: the file or its external data are damaged, or lie outside the folder.
    """
    graph = _onnx_graph.read(path)
    above = path.parent.name == "onnx" and (path.parent.parent / "config.json").is_file()
    folder = path.parent.parent if above and not (path.parent / "config.json").is_file() else path.parent
    prefix = "" if folder == path.parent else "onnx/"
    info: dict[str, TensorInfo] = {}
    files = [prefix + path.name]
    for name, one in graph.initialisers.items():
        where = path if not one.file else _external(path, one.file)
        if prefix + one.file not in files and one.file:
            files.append(prefix + one.file)
        if one.kind not in DTYPES or (one.nbytes < 0 and not one.file):
            continue  # small whole numbers one by one, text: they never move
        info[name] = _info(path, one, where, files[0] if not one.file else prefix + one.file)
    files += sorted(file.name for file in folder.iterdir() if file.suffix in BESIDE and file.is_file())
    return Contents(
        _config(folder, graph), dict(sorted(info.items())), tuple(files), values={"graph": graph}, folder=folder
    )


def _info(path: Path, one: Initialiser, where: Path, file: str) -> TensorInfo:
    dtype = DTYPES[one.kind]
    nbytes, size = math.prod(one.shape) * dtype.itemsize, where.stat().st_size
    if one.nbytes not in (nbytes, -1) or one.start + nbytes > size:
        _signature.check(where, "ONNX")
        raise FormatError(
            f"{path}: {one.name}: expected {nbytes} bytes for {dtype} of shape {one.shape} from byte {one.start} on, "
            f"found {one.nbytes if one.nbytes >= 0 else size - one.start} in {where.name} of {size}; the file is "
            "truncated or damaged: download it again"
        )
    return TensorInfo(dtype, one.shape, file, one.start, nbytes)


def _external(path: Path, said: str) -> Path:
    """A file of external data.

    Raises:
        FormatError: it is not in the model's folder, also by way of a link, or is not there.
    """
    parts = Path(said).parts
    if Path(said).is_absolute() or ".." in parts or "\\" in said or "\0" in said or not parts:
        raise FormatError(f"{path}: expected external data in the model's folder, found {said!r:.80}")
    file = path.parent / said
    # A hub's snapshot is links into one folder: there the data lie beside the model they belong to.
    roots = path.parent.resolve(), path.resolve().parent
    if not any(file.resolve().is_relative_to(root) for root in roots):
        raise FormatError(f"{path}: expected external data in the model's folder, found a link out of it, {said!r:.80}")
    if not file.is_file():
        raise FormatError(f"{path}: expected the external data {said!r:.80} it names, found none; download it again")
    return file


def _config(folder: Path, graph: Graph) -> dict[str, Any]:
    """The config.json of the folder, or what the graph says of itself."""
    said = folder / "config.json"
    if said.is_file():
        try:
            found = json.loads(said.read_bytes())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{said}: expected JSON, found {error}") from error
        if not isinstance(found, dict):
            raise FormatError(f"{said}: expected a JSON object, found {type(found).__name__}")
        return found
    return {"model_type": "onnx"}
