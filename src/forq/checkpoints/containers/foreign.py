"""Describe files and folders that forq cannot open, and what the user can do instead.

The first bytes of a file take precedence over its name. No file is executed.
"""

from __future__ import annotations

from pathlib import Path

from forq.checkpoints import contents as containers
from forq.checkpoints import signature as _signature
from forq.checkpoints.containers.safetensors import read_header
from forq.checkpoints.contents import PICKLE
from forq.errors import FormatError

_CONFIG, _ADAPTER = "config.json", "adapter_config.json"
_PICKLED = (
    "a file of PyTorch (a pickle), which can run code when it is loaded: if you trust it, convert it to "
    "safetensors with the library it belongs to (transformers: from_pretrained, then save_pretrained), and name the "
    "new folder"
)
_SAVE_AGAIN = "save the model as safetensors with transformers, or export it to ONNX"

_HEADS = (
    (0, b"\x89HDF", f"a file of Keras or TensorFlow (HDF5): {_SAVE_AGAIN}"),
    (4, b"TFL3", f"a model of TensorFlow Lite: {_SAVE_AGAIN}"),
    (0, b"\x93NUMPY", "a NumPy array, which is no model"),
    (0, b"lmgg", "a file of GGML, the format before GGUF: convert it with llama.cpp"),
    (0, b"tjgg", "a file of GGML, the format before GGUF: convert it with llama.cpp"),
    (0, b"\x80\x02", _PICKLED),
    (0, b"\x80\x04", _PICKLED),
)
"""Offset, bytes at that offset, and what the file is."""

_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".incomplete", ".aria2")
_ENDINGS = {
    _UNFINISHED: "an unfinished download: finish it, and name the whole file",
    (".imatrix", "imatrix.dat", "imatrix.gguf"): (
        "an importance matrix of llama.cpp, which holds no weights: name the model it was made for"
    ),
    (".npz",): "arrays of NumPy, which are no model; forq attack reads such files as --images and --labels",
    (".npy",): "a NumPy array, which is no model",
    (".pt2",): "a program of torch.export, which forq attack takes as VICTIM; to tune, name the folder of its model",
    (".h5", ".keras", ".pb"): f"a file of Keras or TensorFlow: {_SAVE_AGAIN}",
    (".msgpack",): f"a file of Flax: {_SAVE_AGAIN}",
    (".tflite",): f"a model of TensorFlow Lite: {_SAVE_AGAIN}",
    (".mlmodel", ".mlpackage", ".mlmodelc"): f"a model of Core ML: {_SAVE_AGAIN}",
    (".engine", ".plan"): f"an engine of TensorRT: {_SAVE_AGAIN}",
    (".bin", ".pt", ".pth", ".ckpt", ".pkl"): _PICKLED,
    (".onnx_data", ".onnx.data"): "the data of an ONNX model: name the file .onnx beside it",
}
"""Suffixes, compared without regard to case, and what the file is."""

_COMPANIONS = (
    *("config.json", "generation_config.json", "quantize_config.json", "quant_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja", "model.safetensors.index.json"),
)
"""Files that accompany weights."""

_SINGLE_FILE = ("model.diffusion_model.", "first_stage_model.", "double_blocks.", "joint_blocks.", "cond_stage_model.")
"""Prefixes of tensor names in single-file diffusion models."""


def file(path: Path) -> str:
    """Describe a file that is no checkpoint; completes the message "expected a checkpoint, found …"."""
    with path.open("rb") as stream:
        head = stream.read(256)
    if path.name == PICKLE and (path.parent / _CONFIG).is_file():
        return f"the weights of an HQQ checkpoint: name its folder {path.parent}"
    by_name = _named(path.name)
    if path.name.lower().endswith(_UNFINISHED):
        return by_name
    kind, description = _signature.recognise(head, path.stat().st_size)
    if kind in ("git-LFS", "HTML", "GGUF"):
        return description
    if kind == "safetensors":
        return _safetensors(path)
    if by_name and (by_name != _PICKLED or kind == "a ZIP"):
        return by_name
    for start, magic, meaning in _HEADS:
        if head[start : start + len(magic)] == magic:
            return meaning
    if by_name or kind == "a ZIP":
        return by_name or description
    if path.name == "journal.jsonl":
        return "the journal of a run: name the folder checkpoint/ beside it, or give it to forq replay"
    if path.name == _ADAPTER:
        return _adapter(path.parent)
    if path.name in _COMPANIONS:
        return f"a file that lies beside the weights: name the folder {path.parent}"
    return "a file of a kind forq does not know: name a folder of safetensors with its config.json, a .gguf or an .onnx"


def folder(path: Path) -> str:
    """Describe a folder without config.json; completes the message "expected a config.json, found …"."""
    if (path / "journal.jsonl").is_file():
        return "a run's journal; name its folder checkpoint/"
    if (path / _ADAPTER).is_file():
        return _adapter(path)
    if path.name.lower().endswith((".mlpackage", ".mlmodelc")):
        return f"a model of Core ML: {_SAVE_AGAIN}"
    if (path / "saved_model.pb").is_file():
        return f"a model of TensorFlow: {_SAVE_AGAIN}"
    if files := containers.files(path):
        return f"{', '.join(files)}; name one of them"
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    if weights := [name for name in names if name.endswith(".safetensors")]:
        return (
            f"{weights[0]} without one: {_single_file(path / weights[0]) or 'copy config.json from where it came from'}"
        )
    for name in names:
        if description := _named(name):
            return f"{name}, {description}"
    if any(name in _COMPANIONS for name in names):
        return "a tokenizer or settings without weights: download the weights into it"
    return "none; this is not a transformers checkpoint, and not the folder of a run"


def weights(path: Path) -> str:
    """Describe what a folder with a config.json holds instead of safetensors; completes a message."""
    for name in sorted(entry.name for entry in path.iterdir() if entry.is_file()):
        if description := _named(name):
            return f"{name}, {description}"
    return "no weights: download them into it"


def _named(name: str) -> str:
    lower = name.lower()
    return next((meaning for suffixes, meaning in _ENDINGS.items() if lower.endswith(suffixes)), "")


def _adapter(path: Path) -> str:
    return f"a LoRA adapter: name the base it was made for, and this folder by --adapter {path}"


def _safetensors(path: Path) -> str:
    if (path.parent / _ADAPTER).is_file():
        return _adapter(path.parent)
    if (path.parent / _CONFIG).is_file():
        return f"the weights of a checkpoint: name its folder {path.parent}"
    return _single_file(path) or "weights without a config.json: put its config.json beside it, and name the folder"


def _single_file(path: Path) -> str:
    """Advice for a single-file diffusion model; "" for other files."""
    try:
        names = read_header(path)
    except FormatError:
        return ""
    if not any(name.startswith(_SINGLE_FILE) for name in names):
        return ""
    return (
        "a diffusion model in one file: convert it to a pipeline's folder with diffusers (from_single_file, then "
        "save_pretrained), and name that folder"
    )
