"""Small JSON files beside weights: configurations, indexes, settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forq.checkpoints import signature as _signature
from forq.errors import FormatError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        FormatError: the file is not JSON, or its top level is not an object.
    """
    _signature.check(path, "JSON")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
