"""Contents: the common description of a checkpoint in any container (safetensors, GGUF, ONNX, …)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forq.checkpoints.gguf_names import is_projector, part_of
from forq.checkpoints.tensor import TensorInfo

if TYPE_CHECKING:
    from forq.checkpoints.containers.onnx.graph import Graph


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The contents of a container, read from its headers alone.

    Attributes:
        config: the contents of config.json, or their equivalent: architecture and quantization.
        info: every tensor by name, in name order. They cover all bytes that training can change.
        files: the files of the folder that belong to the checkpoint and are copied by a save;
            None: all files.
        mend: called with the folder of a copy after bytes were replaced, to correct checksums.
        tokenizer: builds a tokenizer from the container itself; None: the tokenizer's files lie
            beside the weights.
        values: values of the container that are no tensors, by name.
        folder: the folder of the checkpoint's files; None: the container's own folder.
        component: the subfolder of a pipeline that is trained. A save copies the other components too.
    """

    config: dict[str, Any]
    info: dict[str, TensorInfo]
    files: tuple[str, ...] | None = None
    mend: Callable[[Path], None] | None = None
    tokenizer: Callable[[], Any] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    component: str | None = None

    @property
    def graph(self) -> Graph | None:
        """The graph of an ONNX model; None for other containers."""
        graph: Graph | None = self.values.get("graph")
        return graph


# Suffix of a single-file checkpoint → module of the container that reads it.
_CONTAINERS = {".gguf": "gguf", ".onnx": "onnx"}
ENDINGS = tuple(_CONTAINERS)
"""Suffixes of single-file checkpoints, in lower case; the comparison ignores case."""

PICKLE = "qmodel.pt"
"""Weights of an HQQ checkpoint: the only file of torch.save that is read. Nothing in it is executed."""

BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Suffixes of the files that accompany weights: configuration and tokenizer."""


def container(path: Path) -> Path | None:
    """The single-file checkpoint at a path: the file itself, or the only such file in a folder.

    Folders are accepted because a run saves a folder and the hub delivers one. Of a model in several
    GGUF files it is the first; a file that reads images for another does not count. A folder with a
    config.json counts only if its weights are one ONNX file, there or in its subfolder ``onnx``.
    """
    if path.is_file():
        return path if _is_single_file(path) else None
    if not path.is_dir():
        return None
    if (path / "config.json").is_file():
        has_weights = any(path.glob("*.safetensors")) or (path / PICKLE).is_file()
        graphs = [] if has_weights else [path / name for name in files(path) if name.lower().endswith(".onnx")]
        return graphs[0] if len(graphs) == 1 else None
    candidates = [file for file in sorted(path.iterdir()) if _is_single_file(file) and _is_model(file)]
    return candidates[0] if len(candidates) == 1 else None


def files(folder: Path) -> list[str]:
    """Names of the single-file checkpoints in a folder and in its subfolder ``onnx``."""
    candidates = [*folder.iterdir(), *folder.glob("onnx/*.[oO][nN][nN][xX]")]
    return sorted(file.relative_to(folder).as_posix() for file in candidates if _is_single_file(file))


def read(file: Path) -> Contents:
    """Read the contents of a single-file checkpoint.

    Raises:
        FormatError: the file is damaged.
    """
    module = import_module(f"forq.checkpoints.containers.{_CONTAINERS[file.suffix.lower()]}")
    contents: Contents = module.contents(file)
    return contents


def _is_model(file: Path) -> bool:
    """Whether a file is a model, or the first part of one, and not what belongs to another file."""
    part = part_of(file)
    return not is_projector(file) and (part is None or part[0] == 1)


def _is_single_file(file: Path) -> bool:
    return file.suffix.lower() in _CONTAINERS and file.is_file()
