"""Keys of config.json that point to other files: transformers reads those in place of the usual ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forq.errors import FormatError

WEIGHTS, CONFIGURATIONS = "transformers_weights", "configuration_files"
SHARDED = ".index.json"
"""End of the name of an index, which says what shards hold."""


def weights_file(path: Path, config: Mapping[str, Any], usual: str) -> str:
    """The name of the weights' file in a folder, or of the file that an index stands for.

    Args:
        path: the folder.
        config: its config.json.
        usual: the name where the configuration has none.

    Raises:
        FormatError: the configuration points to no file of safetensors in the folder, or to other configurations.
    """
    if (others := config.get(CONFIGURATIONS)) is not None:
        raise FormatError(
            f"{path / 'config.json'}: expected a configuration, found {CONFIGURATIONS} {others!r:.80}, of which "
            "transformers reads one in its place, by its version: copy that one over config.json"
        )
    if (named := config.get(WEIGHTS)) is None:
        return usual
    single = named.removesuffix(SHARDED) if isinstance(named, str) else ""
    if not single.endswith(".safetensors") or Path(single).name != single or not (path / str(named)).is_file():
        raise FormatError(
            f"{path / 'config.json'}: expected {WEIGHTS} to name a file of safetensors in the folder, or its index, "
            f"found {named!r:.80}"
        )
    return str(named)
