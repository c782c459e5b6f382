"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path

from forq.errors import FormatError

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


def check(path: Path, own: str) -> None:
    """Refuse a file that is plainly another thing than its reader expects.

    Args:
        own: what that is: GGUF, ONNX, safetensors, a ZIP, JSON.

    Raises:
        FormatError: what it is, and what to do.
    """
    with path.open("rb") as stream:
        head = stream.read(256)
    kind, what = found(head, path.stat().st_size)
    if kind not in ("", own):
        raise FormatError(f"{path}: expected {own}, found {what}")


def found(head: bytes, size: int) -> tuple[str, str]:
    """A kind of file, and what to do with one in another's place; "" where nothing gives it away."""
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
