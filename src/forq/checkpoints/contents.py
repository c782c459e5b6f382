"""What a file or folder of weights holds, whatever it is made of: the common face of safetensors, GGUF, ONNX, …"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forq.checkpoints.tensor import TensorInfo

if TYPE_CHECKING:
    from forq.checkpoints.containers.onnx.graph import Graph


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What a container was found to hold, from its headers alone.

    Attributes:
        config: what a config.json would say: the architecture, and how weights are quantized.
        info: every tensor by name, in name order; together they cover all bytes that may ever move.
        files: those of the folder that are the checkpoint, and that a save copies; None: every file.
        mend: called with the folder of a copy once its bytes were replaced, for checksums that cover them.
        tokenizer: makes a tokenizer from what the container itself holds; None: files beside it say.
        values: what it holds that is no tensor, by name.
        folder: where its files lie, if not where the container itself does.
        component: of a pipeline, the folder below its own that is the checkpoint; the others are copied with it.
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
        """The graph, where the file is an ONNX model."""
        graph: Graph | None = self.values.get("graph")
        return graph


# One file that holds everything, by the end of its name, and the container that reads it.
_CONTAINERS = {".gguf": "gguf", ".onnx": "onnx"}
ENDINGS = tuple(_CONTAINERS)
"""Ends of names of files that hold everything, whatever the case of their letters."""

PICKLE = "qmodel.pt"
"""The one kind of torch.save's files that is read, HQQ's: by a reader that runs nothing of it."""

BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Ends of names of what lies beside weights and goes with them: configuration and tokenizer."""


def container(path: Path) -> Path | None:
    """The single file a path stands for: the path itself, or the only one of its kind in a folder without config.json.

    A folder counts so that what a run saved, and what the hub gives, can be named by its folder. ONNX models have their
    config.json beside them, or lie in a folder ``onnx`` below it.
    """
    if path.is_file():
        return path if _holds_all(path) else None
    if not path.is_dir():
        return None
    if (path / "config.json").is_file():
        own = any(path.glob("*.safetensors")) or (path / PICKLE).is_file()
        graphs = [] if own else [path / name for name in files(path) if name.lower().endswith(".onnx")]
        return graphs[0] if len(graphs) == 1 else None
    found = [file for file in sorted(path.iterdir()) if _holds_all(file)]
    return found[0] if len(found) == 1 else None


def files(folder: Path) -> list[str]:
    """The files in a folder, and in a folder ``onnx`` below it, that hold everything; for messages."""
    found = [*folder.iterdir(), *folder.glob("onnx/*.[oO][nN][nN][xX]")]
    return sorted(file.relative_to(folder).as_posix() for file in found if _holds_all(file))


def read(file: Path) -> Contents:
    """What a single-file container holds.

    Raises:
        FormatError: the file is damaged.
    """
    module = import_module(f"forq.checkpoints.containers.{_CONTAINERS[file.suffix.lower()]}")
    found: Contents = module.contents(file)
    return found


def _holds_all(file: Path) -> bool:
    return file.suffix.lower() in _CONTAINERS and file.is_file()
