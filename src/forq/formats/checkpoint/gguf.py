"""A GGUF file as a checkpoint: its tensors under transformers' names, blocks field by field, its tokenizer."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from forq.core import FormatError
from forq.formats.checkpoint import _gguf_header, _gguf_model
from forq.formats.checkpoint._gguf_kinds import BLOCKS, FLOATS
from forq.formats.checkpoint.contents import Contents
from forq.formats.checkpoint.header import TensorInfo


def contents(path: Path) -> Contents:
    """What a file holds. The configuration names the type of every tensor that is blocks, by transformers' name.

    Of a tensor of blocks every field is one of ours, ``….q_proj.weight.d`` (rows, blocks), ``….q_proj.weight.qs``
    (rows, blocks, 16); together they are all its bytes.

    Raises:
        FormatError: the file is damaged, of a kind of model that is not read, or has tensors of another type.
    """
    header = _gguf_header.read(path)
    shapes = {one.name: one.shape for one in header.tensors}
    config = _gguf_model.config(path, header.values, shapes)
    info: dict[str, TensorInfo] = {}
    types: dict[str, str] = {}
    ends: list[tuple[int, int, str]] = []
    for one in header.tensors:
        name = _gguf_model.place(one.name)
        heads = _gguf_model.heads(name, config)
        if heads and (one.shape[0] % heads or one.shape[0] // heads % 2):
            raise FormatError(f"{path}: {one.name}: expected rows of {heads} heads, found {one.shape[0]}")
        if one.kind in FLOATS:
            dtype = FLOATS[one.kind]
            nbytes = math.prod(one.shape) * dtype.itemsize
            info[name] = TensorInfo(dtype, one.shape, path.name, one.start, nbytes, heads=heads)
        elif one.kind in BLOCKS:
            kind = BLOCKS[one.kind]
            if len(one.shape) != 2 or one.shape[1] % kind.size or not name.endswith(".weight"):
                raise FormatError(
                    f"{path}: {one.name}: expected a matrix in whole blocks of {kind.size}, found {one.shape}"
                )
            rows, blocks = one.shape[0], one.shape[1] // kind.size
            nbytes = rows * blocks * kind.nbytes
            types[name] = kind.name
            for field in kind.fields:
                shape = (rows, blocks) if field.count == 1 else (rows, blocks, field.count)
                info[f"{name}.{field.name}"] = TensorInfo(
                    *(field.dtype, shape, path.name, one.start + field.start, rows * blocks * field.nbytes),
                    piece=field.nbytes,
                    pitch=kind.nbytes,
                    heads=heads,
                )
        else:
            known = ", ".join(["F32", "F16", "BF16", *(kind.name for kind in BLOCKS.values())])
            raise FormatError(f"{path}: {one.name}: expected a type among {known}, found number {one.kind}")
        ends.append((one.start, one.start + nbytes, one.name))
    _apart(path, sorted(ends), header.size)
    config["quantization_config"] = {"quant_method": "gguf", "types": types}
    return Contents(
        config,
        dict(sorted(info.items())),
        files=(path.name,),
        tokenizer=partial(_tokenizer, path),
        values={"rope": _gguf_model.ROPE} if _gguf_model.ROPE in info else {},
    )


def _apart(path: Path, ends: list[tuple[int, int, str]], size: int) -> None:
    """No tensor reaches into the next, or beyond the file."""
    for (_, end, name), (start, _, _) in zip(ends, [*ends[1:], (size, size, "")], strict=True):
        if end > start:
            raise FormatError(
                f"{path}: {name}: expected {end} bytes before what comes next, found {start}; the file is truncated or "
                "damaged: download it again"
            )


def _tokenizer(path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    try:
        # This class, not the automatic one: that reads the configuration too, which takes the gguf package.
        return PreTrainedTokenizerFast(gguf_file=path.name, name_or_path=str(path.parent))
    except Exception as error:  # whatever a damaged vocabulary ends in, somewhere inside transformers
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise FormatError(f"{path}: no tokenizer that transformers can make of it: {said:.200}") from error
