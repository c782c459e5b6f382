"""Things that are no checkpoint are called what they are, by every command, with a way on that does not lead back."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from tests.cli.conftest import forq
from tests.fixtures import gptq

__all__ = ["forq"]


def _zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    return held.getvalue()


def _arrays() -> bytes:
    held = io.BytesIO()
    np.savez(held, images=np.zeros(3))
    return held.getvalue()


PICKLED = "a file of PyTorch"
FILES: dict[str, tuple[bytes, str]] = {
    "pytorch_model.bin": (_zipped(), PICKLED),
    "model.pth": (_zipped(), PICKLED),
    "old.pt": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", PICKLED),
    "sd-v1-5.ckpt": (_zipped(), PICKLED),
    "no_ending": (b"\x80\x04\x95...", PICKLED),
    "arrays.npz": (_arrays(), "arrays of NumPy"),
    "one.npy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
    "tf_model.h5": (b"\x89HDF\r\n\x1a\n", "Keras or TensorFlow"),
    "net.tflite": (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
    "renamed.model": (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
    "net.mlmodel": (b"\x08\x04", "Core ML"),
    "model.gguf.part": (b"GGUF\x03\x00\x00\x00", "an unfinished download"),
    "model.safetensors.incomplete": (b"", "an unfinished download"),
    "model-q4.imatrix": (b"\x02\x00\x00\x00", "an importance matrix"),
    "imatrix.dat": (b"\x02\x00\x00\x00", "an importance matrix"),
    "wrong.ending": (b"GGUF\x03\x00\x00\x00", "give its name the ending .gguf"),
    "ggml-model.bak": (b"tjgg\x03\x00\x00\x00", "before GGUF"),
    "program.pt2": (_zipped(), "takes as VICTIM"),
    "flax_model.msgpack": (b"\x81", "a file of Flax"),
    "engine.plan": (b"ftrt", "TensorRT"),
    "model.onnx_data": (bytes(8), "the data of an ONNX model"),
    "tokenizer.json": (b"{}", "lies beside the weights"),
    "tokenizer.model": (b"\n\x05<unk>", "lies beside the weights"),
    "config.json": (b"{}", "lies beside the weights"),
    "journal.jsonl": (b"{}", "the journal of a run"),
    "notes.txt": (b"hello", "a kind forq does not know"),
    "empty": (b"", "a kind forq does not know"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    content, said = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=said):
        Checkpoint.open(tmp_path / name)


def _only(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return fill


def _weights(name: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        save_file({name: torch.zeros(2)}, folder / "weights.safetensors")

    return fill


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an adapter": (_only("adapter_config.json", b"{}"), "a LoRA adapter: name the base .* --adapter"),
    "pickles": (_only("pytorch_model.bin"), f"pytorch_model.bin, {PICKLED}"),
    "keras": (_only("tf_model.h5"), "Keras or TensorFlow"),
    "tensorflow": (_only("saved_model.pb"), "a model of TensorFlow"),
    "a tokenizer": (_only("tokenizer.json"), "without weights"),
    "safetensors": (_weights("model.norm.weight"), "copy config.json"),
    "diffusion": (_weights("model.diffusion_model.out.0.weight"), "from_single_file"),
    "nothing": (lambda folder: None, "not a transformers checkpoint"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    fill, said = FOLDERS[kind]
    fill(tmp_path)
    with pytest.raises(FormatError, match=said):
        Checkpoint.open(tmp_path)


def test_safetensors_alone_say_which_folder_or_what_to_make(tmp_path: Path) -> None:
    whole = gptq.example(tmp_path / "whole")
    with pytest.raises(FormatError, match=f"name its folder {whole}$"):
        Checkpoint.open(whole / "model.safetensors")
    for name, said in {"model.diffusion_model.x": "from_single_file", "x": "without a config.json"}.items():
        save_file({name: torch.zeros(2)}, tmp_path / "alone.safetensors")
        with pytest.raises(FormatError, match=said):
            Checkpoint.open(tmp_path / "alone.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FormatError, match=f"--adapter {tmp_path}"):
        Checkpoint.open(tmp_path / "alone.safetensors")


def test_what_is_said_leads_in_no_circle(tmp_path: Path) -> None:
    """A folder with a config.json and a pickle: neither names the other."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "pytorch_model.bin").write_bytes(_zipped())
    for source in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(FormatError, match=f"{PICKLED}.*convert it to safetensors"):
            Checkpoint.open(source)


COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": (),
    "quantize": ("out",),
    "export": ("--to", "float16", "--out", "out"),
    "eval": ("--task", "text", "--data", "text.txt"),
    "tune": ("--task", "text", "--data", "text.txt", "--out", "run"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so_without_a_traceback(
    command: str, tmp_path: Path, forq: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("a text")
    (tmp_path / "model.pth").write_bytes(_zipped())
    done = forq(command, tmp_path / "model.pth", *COMMANDS[command])
    assert done.returncode == 1 and PICKLED in done.stderr.replace("\n", " ") and "Traceback" not in done.stderr
