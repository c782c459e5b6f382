"""A checkpoint: what its folder or file holds, its tensors one at a time, and the digest that names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from forq.checkpoints import contents as containers
from forq.checkpoints import signature as _signature
from forq.checkpoints.containers import foreign, pipeline
from forq.checkpoints.containers import torch_save as torchzip
from forq.checkpoints.containers.safetensors import read_header
from forq.checkpoints.contents import PICKLE, Contents
from forq.checkpoints.hub import fetch, hub_id
from forq.checkpoints.patch import Saved, save_patched
from forq.checkpoints.tensor import DTYPES, TensorInfo, byte_view
from forq.errors import FormatError

if TYPE_CHECKING:
    from forq.checkpoints.containers.onnx.graph import Graph

_SINGLE, _CONFIG = "model.safetensors", "config.json"
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_CHUNK_BYTES = 1 << 22

T = TypeVar("T")


class Checkpoint:
    """Tensors and settings of one folder, or of one file that holds all; opened with :meth:`open`, never written to.

    Attributes:
        path: what was opened: the folder, or the file.
        folder: where its files lie.
        contents: what they hold.
    """

    __slots__ = ("_digest", "_known", "contents", "folder", "path")

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path = path
        self.folder = contents.folder or (path if path.is_dir() else path.parent)
        self.contents = contents
        self._digest: str | None = None
        self._known: dict[Callable[[Checkpoint], Any], Any] = {}

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json, or what the file itself says in place of one."""
        return self.contents.config

    @property
    def info(self) -> dict[str, TensorInfo]:
        """Every tensor by name, in name order."""
        return self.contents.info

    @property
    def graph(self) -> Graph | None:
        """The graph, where the checkpoint is an ONNX model."""
        return self.contents.graph

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None) -> Checkpoint:
        """Open a folder, a file that holds all, or what a hub id names (:mod:`forq.checkpoints.hub`).

        What lies here goes before what the hub has under the same name. Reads headers only.

        Raises:
            FormatError: nothing there, no config.json, no weights, or a file that contradicts another.
        """
        path = Path(source)
        if not (path.is_dir() or path.is_file()):
            if (wanted := hub_id(str(source), revision)) is None:
                raise FormatError(f"expected a checkpoint folder, found nothing at {path}")
            path = fetch(wanted)
        if (file := containers.container(path)) is not None:
            return cls(file, containers.read(file))
        if path.is_file():
            raise FormatError(f"{path}: expected a checkpoint, found {foreign.file(path)}")
        if pipeline.is_pipeline(path):
            return cls(path, pipeline.contents(path, read_json, _tensors))
        if not (path / _CONFIG).is_file():
            raise FormatError(f"{path}: expected a {_CONFIG}, found {foreign.folder(path)}")
        return cls(path, _contents(path))

    def read(self, name: str) -> Tensor:
        """One tensor, read from its file into memory of its own.

        Raises:
            FormatError: there is no such tensor, or the file shrank since it was opened.
        """
        info = self._find(name)
        try:
            with (self.folder / info.file).open("rb") as stream:
                return info.read(stream)
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from None

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors have the same dtype, shape and bytes; read a chunk at a time."""
        a, b = self._find(one), self._find(other)
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if a.pitch or b.pitch:
            return torch.equal(self.read(one), self.read(other))
        with (self.folder / a.file).open("rb") as left, (self.folder / b.file).open("rb") as right:
            left.seek(a.start)
            right.seek(b.start)
            return all(
                left.read(min(_CHUNK_BYTES, a.nbytes - at)) == right.read(min(_CHUNK_BYTES, a.nbytes - at))
                for at in range(0, a.nbytes, _CHUNK_BYTES)
            )

    def digest(self) -> str:
        """Content digest of the tensors: blake2b over name, dtype, shape and bytes, in name order.

        Independent of how the tensors are spread over files. Computed once per instance.
        """
        if self._digest is None:
            state = hashlib.blake2b(digest_size=32)
            for name, info in self.info.items():
                head = json.dumps([name, _CODES[info.dtype], list(info.shape)]).encode()
                state.update(len(head).to_bytes(8, "little") + head)
                if info.pitch:
                    state.update(byte_view(self.read(name)))
                    continue
                with (self.folder / info.file).open("rb") as stream:
                    stream.seek(info.start)
                    left = info.nbytes
                    while left:
                        chunk = stream.read(min(left, _CHUNK_BYTES))
                        if not chunk:
                            raise FormatError(f"{name}: {info.file} was truncated since it was opened")
                        state.update(chunk)
                        left -= len(chunk)
            self._digest = state.hexdigest()
        return self._digest

    def once(self, ask: Callable[[Checkpoint], T]) -> T:
        """The answer of a function of the checkpoint, computed at the first call and kept."""
        if ask not in self._known:
            self._known[ask] = ask(self)
        return cast(T, self._known[ask])

    def save_patched(
        self,
        dst: str | Path,
        tensors: Mapping[str, Tensor],
        extra_files: Mapping[str, bytes | Path] | None = None,
        *,
        overwrite: bool = False,
    ) -> Saved:
        """Copy the original files to ``dst`` and overwrite the bytes of ``tensors`` there, and nothing else.

        Args:
            dst: folder to make. It appears whole or not at all.
            tensors: what moved, by name; shape as in the file, dtype as in the file or a wider float.
            extra_files: files to put beside them (a journal, for example), by name.
            overwrite: swap an existing folder for the new one instead of refusing it.

        Raises:
            FormatError: a tensor the checkpoint does not hold, or one that does not fit its place.
            ConfigError: ``dst`` exists, overlaps the original, or cannot be written.
        """
        for name in tensors:
            self._find(name)
        return save_patched(self.folder, self.contents, Path(dst), tensors, extra_files or {}, overwrite)

    def _find(self, name: str) -> TensorInfo:
        try:
            return self.info[name]
        except KeyError:
            raise FormatError(f"{self.path}: expected a tensor {name!r}, found none of that name") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        FormatError: it is not one.
    """
    _signature.check(path, "JSON")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _contents(path: Path) -> Contents:
    config = read_json(path / _CONFIG)
    if (path / PICKLE).is_file() and not any(path.glob("*.safetensors")):
        return torchzip.contents(path / PICKLE, config)
    return Contents(config, _tensors(path))


def _tensors(path: Path, single: str = _SINGLE) -> dict[str, TensorInfo]:
    index = path / f"{single}.index.json"
    if (path / single).is_file():
        found = read_header(path / single)
    elif index.is_file():
        found = _sharded(path, index)
    else:
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            graphs = containers.files(path)
            if files:
                instead = f"{len(files)} safetensors files and no index: add {index.name} or keep one file"
            elif graphs:
                instead = f"{', '.join(graphs)}; name one of them"
            else:
                instead = foreign.weights(path)
            raise FormatError(f"{path}: expected {single} or {index.name}, found {instead}")
        found = read_header(files[0])
    return dict(sorted(found.items()))


def _sharded(path: Path, index: Path) -> dict[str, TensorInfo]:
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise FormatError(f"{index}: expected a weight_map from tensor names to files, found {where!r:.80}")
    shards: dict[str, dict[str, TensorInfo]] = {}
    for file in sorted(set(where.values())):
        if file in ("", ".", "..") or Path(file).name != file:
            raise FormatError(f"{index}: expected names of files in the folder, found {file!r}")
        if not (path / file).is_file():
            raise FormatError(f"{path}: expected the shard {file} its index names, found none; download it again")
        shards[file] = read_header(path / file)
    for name, file in where.items():
        if name not in shards[file]:
            raise FormatError(f"{path / file}: expected the tensor {name} its index names, found none")
    # Loaders read whole shards, so a tensor the index forgot is still part of the model.
    found = {name: info for shard in shards.values() for name, info in shard.items()}
    return found | {name: shards[file][name] for name, file in where.items()}
