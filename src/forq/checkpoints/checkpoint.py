"""A checkpoint: its configuration, its tensors (read one at a time) and the digest of its contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from forq.checkpoints import contents as containers
from forq.checkpoints.containers import foreign, pipeline
from forq.checkpoints.containers import torch_save as torchzip
from forq.checkpoints.containers.safetensors import read_header
from forq.checkpoints.contents import PICKLE, Contents
from forq.checkpoints.hub import fetch, hub_id
from forq.checkpoints.installed import find
from forq.checkpoints.json_file import read_json
from forq.checkpoints.likely import NAMED, nearest_path
from forq.checkpoints.patch import Saved, save_patched
from forq.checkpoints.pointers import SHARDED, weights_file
from forq.checkpoints.tensor import DTYPES, TensorInfo, byte_view
from forq.errors import FormatError

if TYPE_CHECKING:
    from forq.checkpoints.containers.onnx.graph import Graph

_SINGLE, _CONFIG = "model.safetensors", "config.json"
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_CHUNK_BYTES = 1 << 22

T = TypeVar("T")


class Checkpoint:
    """Tensors and configuration of a folder or a single file. Open it with :meth:`open`; it is read-only.

    Attributes:
        path: the folder or file that was opened.
        folder: the folder that holds the checkpoint's files.
        contents: the tensors and settings that the files hold.
    """

    __slots__ = ("_cache", "_digest", "contents", "folder", "path")

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path = path
        self.folder = contents.folder or (path if path.is_dir() else path.parent)
        self.contents = contents
        self._digest: str | None = None
        self._cache: dict[Callable[[Checkpoint], object], object] = {}

    @property
    def config(self) -> dict[str, Any]:
        """The contents of config.json, or the equivalent settings from the file's own header."""
        return self.contents.config

    @property
    def info(self) -> dict[str, TensorInfo]:
        """The location, dtype and shape of every tensor, sorted by name."""
        return self.contents.info

    @property
    def graph(self) -> Graph | None:
        """The graph of an ONNX model; None for other checkpoints."""
        return self.contents.graph

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None) -> Checkpoint:
        """Open a folder, a file, an installed model or a hub id.

        See :mod:`forq.checkpoints.installed` and :mod:`forq.checkpoints.hub`. A local path comes
        first, then an installed model. Only headers are read.

        Raises:
            FormatError: the path does not exist, config.json or the weights are missing, or two files
                contradict each other.
        """
        path = Path(source)
        if not (path.is_dir() or path.is_file()):
            if (model := find(str(source))) is not None:
                return cls.open(model)
            if (repository := hub_id(str(source), revision)) is None:
                raise FormatError(f"expected {NAMED}; found nothing at {source}{nearest_path(path)}")
            path = fetch(repository)
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
        """Read one tensor from its file into new memory.

        Raises:
            FormatError: the checkpoint has no tensor of that name, or the file is shorter than its
                header says.
        """
        info = self._find(name)
        try:
            with (self.folder / info.file).open("rb") as stream:
                return info.read(stream)
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from None

    def parts(self, name: str) -> Iterator[Tensor]:
        """Read one tensor in order, flat and in parts; at once only if its file stores it in another order.

        Raises:
            FormatError: as :meth:`read`.
        """
        info = self._find(name)
        with (self.folder / info.file).open("rb") as stream:
            try:
                yield from info.parts(stream)
            except FormatError as error:
                raise FormatError(f"{name}: {error}") from None

    def same(self, first: str, second: str) -> bool:
        """Whether two tensors have the same dtype, shape and bytes. Files are compared chunk by chunk."""
        a, b = self._find(first), self._find(second)
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if a.pitch or b.pitch:
            return torch.equal(self.read(first), self.read(second))
        with (self.folder / a.file).open("rb") as left, (self.folder / b.file).open("rb") as right:
            left.seek(a.start)
            right.seek(b.start)
            return all(
                left.read(min(_CHUNK_BYTES, a.nbytes - offset)) == right.read(min(_CHUNK_BYTES, a.nbytes - offset))
                for offset in range(0, a.nbytes, _CHUNK_BYTES)
            )

    def digest(self) -> str:
        """Digest of the tensors: blake2b over name, dtype, shape and bytes, in name order.

        It does not depend on how the tensors are split into files. It is computed once per instance.
        """
        if self._digest is None:
            state = hashlib.blake2b(digest_size=32)
            for name, info in self.info.items():
                head = json.dumps([name, _CODES[info.dtype], list(info.shape)]).encode()
                state.update(len(head).to_bytes(8, "little") + head)
                if info.pitch:
                    for part in self.parts(name):
                        state.update(byte_view(part))
                    continue
                with (self.folder / info.file).open("rb") as stream:
                    stream.seek(info.start)
                    remaining = info.nbytes
                    while remaining:
                        chunk = stream.read(min(remaining, _CHUNK_BYTES))
                        if not chunk:
                            raise FormatError(f"{name}: {info.file} was truncated since it was opened")
                        state.update(chunk)
                        remaining -= len(chunk)
            self._digest = state.hexdigest()
        return self._digest

    def once(self, function: Callable[[Checkpoint], T]) -> T:
        """The result of ``function(checkpoint)``, computed at the first call and cached."""
        if function not in self._cache:
            self._cache[function] = function(self)
        return cast(T, self._cache[function])

    def save_patched(
        self,
        dst: str | Path,
        tensors: Mapping[str, Tensor],
        extra_files: Mapping[str, bytes | Path] | None = None,
        *,
        overwrite: bool = False,
    ) -> Saved:
        """Copy the original files to ``dst`` and overwrite only the bytes of ``tensors`` in the copy.

        Args:
            dst: folder to create. It appears complete or not at all.
            tensors: new values by tensor name. The shape must be the file's; the dtype must be the
                file's, or float32 or float64.
            extra_files: further files to write into the folder, by name (a journal, for example).
            overwrite: replace an existing folder instead of refusing it.

        Raises:
            FormatError: the checkpoint has no tensor of that name, or a tensor has the wrong shape or dtype.
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


def _contents(path: Path) -> Contents:
    config = read_json(path / _CONFIG)
    if (path / PICKLE).is_file() and not any(path.glob("*.safetensors")):
        return torchzip.contents(path / PICKLE, config)
    return Contents(config, _tensors(path, weights_file(path, config, _SINGLE)))


def _tensors(path: Path, single: str) -> dict[str, TensorInfo]:
    index = path / f"{single.removesuffix(SHARDED)}{SHARDED}"
    if not single.endswith(SHARDED) and (path / single).is_file():
        info = read_header(path / single)
    elif index.is_file():
        info = _sharded(path, index)
    else:
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            graphs = containers.files(path)
            if files:
                description = f"{len(files)} safetensors files and no index: add {index.name} or keep one file"
            elif graphs:
                description = f"{', '.join(graphs)}; name one of them"
            else:
                description = foreign.weights(path)
            raise FormatError(f"{path}: expected {single} or {index.name}, found {description}")
        info = read_header(files[0])
    return dict(sorted(info.items()))


def _sharded(path: Path, index: Path) -> dict[str, TensorInfo]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise FormatError(f"{index}: expected a weight_map from tensor names to files, found {weight_map!r:.80}")
    shards: dict[str, dict[str, TensorInfo]] = {}
    for file in sorted(set(weight_map.values())):
        if file in ("", ".", "..") or Path(file).name != file:
            raise FormatError(f"{index}: expected names of files in the folder, found {file!r}")
        if not (path / file).is_file():
            raise FormatError(f"{path}: expected the shard {file} that its index names, found none; download it again")
        shards[file] = read_header(path / file)
    for name, file in weight_map.items():
        if name not in shards[file]:
            raise FormatError(f"{path / file}: expected the tensor {name} that the index names, found none")
    # Loaders read whole shards, so a tensor that the index does not list still belongs to the model, and of a tensor
    # that several hold the last counts.
    stored = {name: info for shard in shards.values() for name, info in shard.items()}
    if name := next((name for name, file in weight_map.items() if stored[name].file != file), None):
        raise FormatError(
            f"{path}: expected each tensor in one shard, found {name} in {weight_map[name]}, as the index says, and in "
            f"{stored[name].file}, from which transformers reads it: take it out of one of them"
        )
    return stored
