"""Networks of a user's own that look at pictures, by name: an ONNX file, a ``torch.export`` file, or a Python function.

Nothing is unpickled. A file says itself what pictures it takes; a function takes what it is given.
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

_SAFE_LOADS, _UNSAFE_LOADS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_PICKLES = (".pt", ".pth", ".th", ".pkl", ".pickle", ".ckpt", ".bin")


@dataclass(frozen=True, slots=True)
class Input:
    """What pictures a file takes.

    Attributes:
        floats: float32 [N, C, H, W]; otherwise uint8 [N, H, W, C].
        channels, height, width: of a picture; ``None``: the file leaves it open.
    """

    floats: bool
    channels: int | None
    height: int | None
    width: int | None


@dataclass(frozen=True, slots=True)
class Network:
    """A function from a batch of pictures to an array or a tensor, one row for each.

    Attributes:
        digest: SHA-256 of the file behind it.
        input: what it takes; ``None``: a Python function, which says nothing.
    """

    predict: Predict
    digest: str
    input: Input | None


def open_network(
    name: str, asked: str, threads: int | None = None, output: str | None = None, name_it: str = "export it with one"
) -> Network:
    """The network a name means.

    Args:
        name: ``model.onnx``, ``model.pt2``, ``module:function`` or ``path/to/file.py:function``.
        asked: what the name was given for, as errors call it.
        threads: of an ONNX session; ``None``: as many as ONNX Runtime likes.
        output: which of a file's outputs is meant; ``None``: its only one.
        name_it: what to do where a file has several outputs, as errors say it.

    Raises:
        ConfigError: no such network or output, several outputs and none named, or it takes something else than
            pictures.
        FormatError: the file is broken or would have to be unpickled.
    """
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise FormatError(
            f"{name}: forq does not unpickle models: export it with torch.onnx.export (.onnx) or torch.export.save "
            "(.pt2), or name a function that loads it (file.py:function)"
        )
    if suffix not in (".onnx", ".pt2"):
        if output is not None:
            raise ConfigError(f"{name}: a Python function has one output: let it return the scores, found {output!r}")
        return Network(*userfunctions.resolve(name, asked), input=None)
    if not path.is_file():
        raise ConfigError(f"{asked}: there is no file {name}")
    choose = partial(_chosen, path, output, name_it)
    predict, taken = _onnx(path, threads, choose) if suffix == ".onnx" else _exported(path, choose)
    return Network(predict, hashlib.sha256(path.read_bytes()).hexdigest(), taken)


def _chosen(path: Path, output: str | None, name_it: str, outputs: Sequence[str]) -> int:
    """Which of a file's outputs is meant.

    Raises:
        ConfigError: it has none of that name, or several and none is named.
    """
    if output is None and len(outputs) == 1:
        return 0
    if output not in outputs:
        wanted = "one output" if output is None else f"an output called {output!r}"
        raise ConfigError(f"{path}: expected {wanted}, found {', '.join(outputs)}: {name_it}")
    return outputs.index(output)


def _onnx(path: Path, threads: int | None, choose: Callable[[Sequence[str]], int]) -> tuple[Predict, Input]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # one class for every kind of broken file, of no public name
        raise FormatError(f"{path}: ONNX Runtime cannot load it: {str(error).strip().splitlines()[0]}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        said = ", ".join(f"{one.name} {one.shape}" for one in inputs)
        raise ConfigError(f"{path}: expected one input of four axes (images), found {said}")
    floats = _floats(path, inputs[0].type, "tensor(float)", "tensor(uint8)")
    outputs = [one.name for one in session.get_outputs()]
    shape, name, output = inputs[0].shape, inputs[0].name, outputs[choose(outputs)]
    # uint8 models come with either order of axes; the one that has 1 or 3 channels tells.
    channels_first = not floats and shape[1] in (1, 3) and shape[3] not in (1, 3)

    def predict(batch: NDArray[Any]) -> Any:
        turned = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if channels_first else batch
        return session.run([output], {name: turned})[0]

    return _filled(predict, shape[0]), _input(floats, shape, channels_first)


def _exported(path: Path, choose: Callable[[Sequence[str]], int]) -> tuple[Predict, Input]:
    import torch

    _refuse_pickles(path)
    try:
        with _weights_only():
            program = torch.export.load(path)
    except Exception as error:  # broken archives raise whatever they trip over
        said = str(error).strip().splitlines()
        raise FormatError(
            f"{path}: torch.export cannot load it: {said[0] if said else type(error).__name__}"
        ) from error
    (first, *more) = program.graph_signature.user_inputs
    example = next(node.meta["val"] for node in program.graph.nodes if node.name == first)
    if more or not isinstance(example, torch.Tensor) or example.dim() != 4:
        raise ConfigError(f"{path}: expected one input of four axes (images)")
    floats = _floats(path, example.dtype, torch.float32, torch.uint8)
    place = choose([str(name) for name in program.graph_signature.user_outputs])
    module = program.module()

    def predict(batch: NDArray[Any]) -> Any:
        with torch.no_grad():
            return torch.utils._pytree.tree_leaves(module(torch.from_numpy(batch)))[place]

    return _filled(predict, example.shape[0]), _input(floats, example.shape)


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
    """Refuse an archive with pickled objects (custom classes, opaque constants); torch loads its tensors safely."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            configs = [json.loads(archive.read(one)) for one in names if one.endswith("_config.json")]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FormatError(f"{path}: not a torch.export archive: {error}") from error
    paths = [str(entry.get("path_name", "")) for one in configs for entry in one.get("config", {}).values()]
    bad = [one for one in (*names, *paths) if Path(one).name.startswith(("custom_obj", "opaque_obj"))]
    if bad:
        raise FormatError(
            f"{path}: it holds pickled objects ({bad[0]}), which forq does not load: export it without them"
        )


def _floats(path: Path, found: object, float32: object, uint8: object) -> bool:
    if found not in (float32, uint8):
        raise ConfigError(f"{path}: expected an input of uint8 or float32, found {found}")
    return found == float32


def _input(floats: bool, shape: Sequence[Any], channels_first: bool = False) -> Input:
    # What a file leaves open is a name to ONNX and a symbol to torch.
    _, *axes = (size if isinstance(size, int) and size > 0 else None for size in shape)
    first, second, third = axes
    return Input(floats, first, second, third) if floats or channels_first else Input(floats, third, first, second)


def _filled(predict: Callable[[NDArray[Any]], Any], size: Any) -> Predict:
    """A model of a fixed batch size is called in pieces of that size, the last one filled with copies of its end."""
    if not isinstance(size, int) or size < 1:
        return predict

    def pieces(batch: NDArray[Any]) -> Any:
        spare = -len(batch) % size
        whole = np.concatenate([batch, np.repeat(batch[-1:], spare, axis=0)]) if spare else batch
        parts = [np.asarray(predict(whole[at : at + size])) for at in range(0, len(whole), size)]
        return np.concatenate(parts)[: len(batch)]

    return pieces
