"""Load a user's function by name: ``module:function`` or ``path/to/file.py:function``. This runs the user's code."""

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


def resolve(name: str, option: str) -> tuple[Callable[..., Any], str]:
    """Load a function, and compute the SHA-256 digest of its file.

    Args:
        name: ``module:function`` or ``path/to/file.py:function``. The current folder is searched for modules, too.
        option: the option or setting that holds the name, for error messages.

    Raises:
        ConfigError: the name has another form, there is no such file, the module cannot be imported, or it has no
            such function.
    """
    location, colon, attribute = name.rpartition(":")
    if not colon or not location or not attribute:
        raise ConfigError(f"{option}: expected module:function or file.py:function, found {name!r}")
    if location.endswith(".py") and not Path(location).is_file():
        raise ConfigError(f"{option}: there is no file {location}")
    try:
        module = _file(Path(location)) if location.endswith(".py") else _module(location)
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(f"{option}: {location} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"{option}: {location} has no function {attribute!r}")
    source = Path(str(module.__file__)).read_bytes() if getattr(module, "__file__", None) else b""
    return function, hashlib.sha256(source).hexdigest()


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
    # As an import would do: dataclasses look up their module, and a file may import its neighbours.
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
