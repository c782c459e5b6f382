"""Files that are another thing than their name says: what they are, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from tests.fixtures import gguf, gptq, hqq, onnx

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4123456789\n"
PAGE = b"\n<!DOCTYPE html>\n<html class=''><head><title>x.gguf</title></head></html>\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A valid file of every kind, each where it is opened from."""
    outside = onnx.example(tmp_path / "outside", external=True)
    return {
        "gguf": gguf.example(tmp_path / "gguf"),
        "safetensors": gptq.example(tmp_path / "gptq") / "model.safetensors",
        "json": gptq.example(tmp_path / "config") / "config.json",
        "onnx": onnx.example(tmp_path / "onnx") / "model.onnx",
        "data": outside / "model.onnx_data",
        "zip": hqq.example(tmp_path / "hqq") / "qmodel.pt",
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [(POINTER, "a pointer of git-LFS .*git lfs pull"), (PAGE, "a web page .*download the file itself")],
)
@pytest.mark.parametrize("kind", ["gguf", "safetensors", "json", "onnx", "data", "zip"])
def test_a_pointer_and_a_page_are_called_what_they_are(files: dict[str, Path], kind: str, content, says) -> None:
    file = files[kind]
    opened = file if kind == "gguf" else file.parent
    assert Checkpoint.open(opened).info
    file.write_bytes(content)
    with pytest.raises(FormatError, match=f"{file.name}: expected .*, found {says}"):
        Checkpoint.open(opened)


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        ("safetensors", "gguf", "expected GGUF, found safetensors: give its name that ending"),
        ("gguf", "onnx", r"expected ONNX, found a GGUF file: give its name the ending \.gguf"),
        ("gguf", "safetensors", "expected safetensors, found a GGUF file"),
        ("zip", "safetensors", "expected safetensors, found a ZIP, perhaps a pickle"),
    ],
)
def test_a_renamed_file_is_called_what_it_is(files: dict[str, Path], theirs: str, ours: str, says: str) -> None:
    shutil.copyfile(files[theirs], files[ours])
    with pytest.raises(FormatError, match=says):
        Checkpoint.open(files[ours] if ours == "gguf" else files[ours].parent)


@pytest.mark.parametrize("kind", ["gguf", "onnx"])
def test_endings_in_capitals_are_the_same_endings(files: dict[str, Path], kind: str, tmp_path: Path) -> None:
    digest = Checkpoint.open(files[kind]).digest()
    loud = files[kind].rename(files[kind].with_suffix(f".{kind.upper()}"))
    assert Checkpoint.open(loud).digest() == Checkpoint.open(loud.parent).digest() == digest
    Checkpoint.open(loud).save_patched(tmp_path / "out", {})
    assert Checkpoint.open(tmp_path / "out").path == tmp_path / "out" / loud.name
    with pytest.raises(FormatError, match="found nothing at"):
        Checkpoint.open(f"absent.{kind.upper()}")
