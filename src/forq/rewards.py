"""Rewards: functions of (prompt, text, row) that a run can have for its objective, differentiable or not.

A reward is any Python function. ``prompt`` is what the model was given, ``text`` what it answered: the likeliest option
of a task that chooses, the likeliest continuation of one that completes. ``row`` holds ``answer``, the right one.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from forq.core import ConfigError

Reward = Callable[[str, str, Mapping[str, Any]], float]


def accuracy(prompt: str, text: str, row: Mapping[str, Any]) -> float:
    """1 where the answer is the right one, spaces around it aside, else 0."""
    return float(text.strip() == str(row["answer"]).strip())


def f1(prompt: str, text: str, row: Mapping[str, Any]) -> float:
    """Harmonic mean of precision and recall of the answer's words, lower-cased."""
    found, wanted = (Counter(words.lower().split()) for words in (text, str(row["answer"])))
    shared = (found & wanted).total()
    return 2.0 * shared / (found.total() + wanted.total()) if shared else 0.0


SHIPPED = {"accuracy": accuracy, "f1": f1}


def resolve(name: str) -> tuple[Reward, str]:
    """The function a name means, and a digest of the code it stands in.

    Args:
        name: ``accuracy``, ``f1``, ``module:function`` or ``path/to/file.py:function``; modules are looked for in the
            current folder too. The code is run: it is the user's own.

    Raises:
        ConfigError: it cannot be imported, or is no function.
    """
    if name in SHIPPED:
        return SHIPPED[name], hashlib.sha256(inspect.getsource(SHIPPED[name]).encode()).hexdigest()
    where, colon, function = name.rpartition(":")
    if not colon or not where or not function:
        raise ConfigError(
            f"--reward: expected {', '.join(SHIPPED)}, module:function or file.py:function, found {name!r}"
        )
    try:
        module = _file(Path(where)) if where.endswith(".py") else _module(where)
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(f"--reward: {where} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigError(f"--reward: {where} has no function {function!r}")
    source = Path(str(module.__file__)).read_bytes() if getattr(module, "__file__", None) else b""
    return found, hashlib.sha256(source).hexdigest()


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def _file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
