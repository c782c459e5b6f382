"""Load a user's image network by name: an ONNX file, a ``torch.export`` file, or a Python function.

Nothing is unpickled. A file declares the images it accepts; a Python function declares nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forq.errors import ConfigError, FormatError
from forq.plugins import functions as userfunctions

Predict = Callable[[NDArray[Any]], Any]
Beside = Callable[[Path], Sequence[str]]
"""Names of the files beside an ONNX file that hold weights of it. Who knows the format lies on a higher floor."""

_SAFE_LOADS, _UNSAFE_LOADS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_PICKLES = (".pt", ".pth", ".th", ".pkl", ".pickle", ".ckpt", ".bin")


@dataclass(frozen=True, slots=True)
class Input:
    """The images that a model file accepts.

    Attributes:
        floats: True for float32 [N, C, H, W], False for uint8 [N, H, W, C].
        channels, height, width: size of an image; None: any size.
    """

    floats: bool
    channels: int | None
    height: int | None
    width: int | None


@dataclass(frozen=True, slots=True)
class Network:
    """A function from a batch of images to an array or tensor with one row for each image.

    Attributes:
        predict: the function.
        digest: SHA-256 of the file that defines it, and of the files beside it that hold its weights.
        input: the images it accepts; None for a Python function, which declares nothing.
    """

    predict: Predict
    digest: str
    input: Input | None


def open_network(
    name: str,
    option: str,
    beside: Beside,
    threads: int | None = None,
    output: str | None = None,
    advice: str = "export it with one",
) -> Network:
    """Load a network.

    Args:
        name: ``model.onnx``, ``model.pt2``, ``module:function`` or ``path/to/file.py:function``.
        option: the option or setting that holds the name, for error messages.
        beside: :func:`forq.checkpoints.containers.onnx.external.files`; asked about ONNX files that may have any.
        threads: threads of the ONNX session; None: ONNX Runtime's default.
        output: name of the file's output to use; None: its only output.
        advice: how to choose one of several outputs, for error messages.

    Raises:
        ConfigError: the network or the output does not exist, the output is ambiguous, or the network does
            not accept images.
        FormatError: the file is damaged or would have to be unpickled.
    """
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise FormatError(
            f"{name}: forq does not unpickle models: export it with torch.onnx.export (.onnx) or torch.export.save "
            "(.pt2), or name a function that loads it (file.py:function)"
        )
    if threads is not None and suffix != ".onnx":
        raise ConfigError(f"{name}: only an .onnx network takes a number of threads, found {threads}")
    if suffix not in (".onnx", ".pt2"):
        if output is not None:
            raise ConfigError(f"{name}: a Python function has one output: let it return the scores, found {output!r}")
        if ":" not in name:
            raise ConfigError(
                f"{option}: expected model.onnx, model.pt2, module:function or file.py:function, found {name!r}"
            )
        return Network(*userfunctions.resolve(name, option), input=None)
    if not path.is_file():
        raise ConfigError(f"{option}: there is no file {name}")
    choose = partial(_chosen_output, path, output, advice)
    predict, images = _onnx(path, threads, choose) if suffix == ".onnx" else _exported(path, choose)
    return Network(predict, _digest(path, beside if suffix == ".onnx" else _none), images)


def _none(path: Path) -> Sequence[str]:
    return ()


def _digest(path: Path, beside: Beside) -> str:
    """SHA-256 of a file; if it has weights beside it, of this digest, and the names and digests of those files."""
    data = path.read_bytes()
    own = hashlib.sha256(data).hexdigest()
    # A tensor outside the file has an entry of this name.
    names = beside(path) if b"location" in data else ()
    found = {name: file for name in names if (file := _beside(path, name)) is not None}
    if not found:
        return own
    whole = hashlib.sha256(own.encode())
    for name, file in found.items():
        with file.open("rb") as stream:
            whole.update(f"\n{hashlib.file_digest(stream, 'sha256').hexdigest()} {name}".encode())
    return whole.hexdigest()


def _beside(path: Path, name: str) -> Path | None:
    """A file beside the model, or beside what the model is a link to; None: the session loaded without it."""
    files = (folder / name for folder in (path.parent, path.resolve().parent))
    return next((file for file in files if file.is_file()), None)


def _chosen_output(path: Path, output: str | None, advice: str, outputs: Sequence[str]) -> int:
    """Index of the output to use.

    Raises:
        ConfigError: the file has no output of that name, or it has several and none was named.
    """
    if output is None and len(outputs) == 1:
        return 0
    if output not in outputs:
        wanted = "one output" if output is None else f"an output called {output!r}"
        raise ConfigError(f"{path}: expected {wanted}, found {', '.join(outputs)}: {advice}")
    return outputs.index(output)


def _onnx(path: Path, threads: int | None, choose: Callable[[Sequence[str]], int]) -> tuple[Predict, Input]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's error class is not public
        raise FormatError(f"{path}: ONNX Runtime cannot load it: {str(error).strip().splitlines()[0]}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in inputs)
        raise ConfigError(f"{path}: expected one input of four axes (images), found {shapes}")
    floats = _floats(path, inputs[0].type, "tensor(float)", "tensor(uint8)")
    outputs = [tensor.name for tensor in session.get_outputs()]
    shape, name, output = inputs[0].shape, inputs[0].name, outputs[choose(outputs)]
    # uint8 models use either order of axes; the axis of size 1 or 3 is taken for the channels.
    channels_first = not floats and shape[1] in (1, 3) and shape[3] not in (1, 3)

    def predict(batch: NDArray[Any]) -> Any:
        images = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if channels_first else batch
        return session.run([output], {name: images})[0]

    return _fixed_size(predict, shape[0]), _input(floats, shape, channels_first)


def _exported(path: Path, choose: Callable[[Sequence[str]], int]) -> tuple[Predict, Input]:
    import torch

    _refuse_pickles(path)
    try:
        with _weights_only():
            program = torch.export.load(path)
    except Exception as error:  # a damaged archive can raise any error
        lines = str(error).strip().splitlines()
        raise FormatError(
            f"{path}: torch.export cannot load it: {lines[0] if lines else type(error).__name__}"
        ) from error
    (first, *more) = program.graph_signature.user_inputs
    example = next(node.meta["val"] for node in program.graph.nodes if node.name == first)
    if more or not isinstance(example, torch.Tensor) or example.dim() != 4:
        raise ConfigError(f"{path}: expected one input of four axes (images)")
    floats = _floats(path, example.dtype, torch.float32, torch.uint8)
    index = choose([str(name) for name in program.graph_signature.user_outputs])
    module = program.module()

    def predict(batch: NDArray[Any]) -> Any:
        with torch.no_grad():
            return torch.utils._pytree.tree_leaves(module(torch.from_numpy(batch)))[index]

    return _fixed_size(predict, example.shape[0]), _input(floats, example.shape)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Keep torch from unpickling anything but tensors, by torch's own switches.

    torch.export.load falls back to full unpickling of tensors that a safe load refuses; here it may not.
    """
    before = {name: os.environ.pop(name, None) for name in (_SAFE_LOADS, _UNSAFE_LOADS)}
    os.environ[_SAFE_LOADS] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _refuse_pickles(path: Path) -> None:
    """Refuse an archive with pickled objects (custom classes, opaque constants). Its tensors are loaded safely."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            configs = [json.loads(archive.read(name)) for name in names if name.endswith("_config.json")]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FormatError(f"{path}: not a torch.export archive: {error}") from error
    paths = [str(entry.get("path_name", "")) for config in configs for entry in config.get("config", {}).values()]
    pickles = [name for name in (*names, *paths) if Path(name).name.startswith(("custom_obj", "opaque_obj"))]
    if pickles:
        raise FormatError(
            f"{path}: it holds pickled objects ({pickles[0]}), which forq does not load: export it without them"
        )


def _floats(path: Path, dtype: object, float32: object, uint8: object) -> bool:
    if dtype not in (float32, uint8):
        raise ConfigError(f"{path}: expected an input of uint8 or float32, found {dtype}")
    return dtype == float32


def _input(floats: bool, shape: Sequence[Any], channels_first: bool = False) -> Input:
    # An open size is a name in ONNX and a symbol in torch.
    _, *axes = (size if isinstance(size, int) and size > 0 else None for size in shape)
    first, second, third = axes
    return Input(floats, first, second, third) if floats or channels_first else Input(floats, third, first, second)


def _fixed_size(predict: Callable[[NDArray[Any]], Any], size: Any) -> Predict:
    """Call a model of a fixed batch size in chunks of that size; the last chunk repeats its last image."""
    if not isinstance(size, int) or size < 1:
        return predict

    def chunked(batch: NDArray[Any]) -> Any:
        missing = -len(batch) % size
        padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        chunks = [np.asarray(predict(padded[start : start + size])) for start in range(0, len(padded), size)]
        return np.concatenate(chunks)[: len(batch)]

    return chunked
