"""Functions of a user's own, by name: ``module:function`` or ``path/to/file.py:function``. Their code is run."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from forq.errors import ConfigError


def resolve(name: str, asked: str) -> tuple[Callable[..., Any], str]:
    """The function a name means, and a digest (SHA-256) of the file it stands in.

    Args:
        name: ``module:function`` or ``path/to/file.py:function``; modules are looked for in the current folder too.
        asked: what the name was given for, as errors call it.

    Raises:
        ConfigError: it has another form, cannot be imported, or is no function.
    """
    where, colon, function = name.rpartition(":")
    if not colon or not where or not function:
        raise ConfigError(f"{asked}: expected module:function or file.py:function, found {name!r}")
    try:
        module = _file(Path(where)) if where.endswith(".py") else _module(where)
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(f"{asked}: {where} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigError(f"{asked}: {where} has no function {function!r}")
    source = Path(str(module.__file__)).read_bytes() if getattr(module, "__file__", None) else b""
    return found, hashlib.sha256(source).hexdigest()


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def _file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(spec)
    # As an import would: dataclasses look their module up, and a file may import what lies beside it.
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
