"""The generation settings beside a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forq.checkpoints import Checkpoint
from forq.checkpoints.json_file import read_json
from forq.errors import FormatError
from forq.models.tokenizer.opened import GENERATION

if TYPE_CHECKING:
    from transformers import GenerationConfig


def generation_config(ckpt: Checkpoint) -> GenerationConfig | None:
    """The settings in ``generation_config.json``, or None if there is no such file.

    Raises:
        FormatError: transformers cannot read it.
    """
    path = ckpt.folder / GENERATION
    if not path.is_file():
        return None
    from transformers import GenerationConfig

    settings = read_json(path)
    try:
        return GenerationConfig.from_dict(settings)
    except Exception as error:  # a bad value can fail in any way inside transformers
        raise FormatError(f"{path}: expected settings transformers can read, found {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
