"""Recognise a file by its first bytes, regardless of its name."""

from __future__ import annotations

from pathlib import Path

from forq.errors import FormatError

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


def check(path: Path, expected: str) -> None:
    """Refuse a file whose first bytes are those of another kind of file.

    Args:
        expected: the kind that the caller reads: GGUF, ONNX, safetensors, a ZIP, JSON.

    Raises:
        FormatError: the file is of another kind; the message names the kind and what to do.
    """
    with path.open("rb") as stream:
        head = stream.read(256)
    kind, description = recognise(head, path.stat().st_size)
    if kind not in ("", expected):
        raise FormatError(f"{path}: expected {expected}, found {description}")


def recognise(head: bytes, size: int) -> tuple[str, str]:
    """The kind of a file, and a description with advice; empty strings if it is not recognised."""
    if head.startswith(_POINTER):
        return "git-LFS", "a pointer of git-LFS in its place: run git lfs pull there, or download the file itself"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return "HTML", "a web page saved under its name: download the file itself, not the page that shows it"
    if head.startswith(b"GGUF"):
        return "GGUF", "a GGUF file: give its name the ending .gguf"
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP", "a ZIP, perhaps a pickle of torch.save, which can run code when loaded: convert it"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors", "safetensors: give its name that ending, beside its config.json"
    return "", ""
