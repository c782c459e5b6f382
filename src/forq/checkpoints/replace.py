"""Create a folder completely or not at all: fill a temporary folder, flush it to disk, rename it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from forq.errors import ConfigError


def replace_folder(dst: Path, fill: Callable[[Path], None]) -> None:
    """Create ``dst`` with the files that ``fill`` writes into an empty folder.

    An existing folder is renamed first and deleted only after the new folder is in place. It is
    restored if that fails.

    Raises:
        ConfigError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    token = secrets.token_hex(4)
    fresh = dst.parent / f".{dst.name}.{token}.partial"
    aside = dst.parent / f".{dst.name}.{token}.old"
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        fill(fresh)
        _flush(fresh)
        if dst.is_dir():
            dst.replace(aside)
        try:
            fresh.replace(dst)
        except OSError:
            if aside.is_dir():
                aside.replace(dst)
            raise
        _flush_entry(dst.parent)
    except OSError as error:
        raise ConfigError(
            f"expected to write the folder {dst}, found: {error.strerror or error}; nothing was left behind"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def check_destination(src: Path, dst: Path, overwrite: bool) -> None:
    """Refuse a destination that holds files already or overlaps the folder being copied.

    Raises:
        ConfigError: the destination is a file, is not empty, or lies inside or around the original.
    """
    here, there = src.resolve(), dst.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise ConfigError(
            f"expected a folder apart from the original checkpoint {src}, found {dst}; the original is the "
            "base every journal refers to: save somewhere else"
        )
    if dst.exists() and not dst.is_dir():
        raise ConfigError(f"expected a folder to save to, found the file {dst}")
    if dst.is_dir() and any(dst.iterdir()) and not overwrite:
        raise ConfigError(f"expected a new or empty folder to save to, found files in {dst}; pass overwrite=True")


def _flush(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _flush_entry(Path(root) / name)
        _flush_entry(Path(root))


def _flush_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
