"""Export a quantized checkpoint to a GGUF file that llama.cpp loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf.write import write
from forq.errors import ConfigError, FormatError
from forq.models.convert.gguf.header import keys
from forq.models.convert.gguf.tensors import stored
from forq.models.convert.gguf.tokenizer import values
from forq.models.layout import Layout
from forq.models.tokenizer import open_tokenizer

FILE = "model.gguf"


def check(ckpt: Checkpoint, out: Path) -> None:
    """Refuse a source that is a GGUF file already, and a destination that reads like a file.

    Raises:
        ConfigError, FormatError: it is so.
    """
    check_out(out, FILE)
    if ckpt.path.suffix == ".gguf":
        raise FormatError(f"{ckpt.path}: expected a checkpoint to write as GGUF, found a GGUF file: copy it")


def check_out(out: Path, file: str) -> None:
    """Refuse the name of a file in place of a folder's.

    Raises:
        ConfigError: it is so.
    """
    if out.suffix == ".gguf":
        raise ConfigError(f"--out: expected a folder, in which the file will be {file}, found {out}")


def write_model(ckpt: Checkpoint, layout: Layout, folder: Path) -> tuple[str, ...]:
    """Write the file into a folder.

    Returns:
        Sentences for the user: the types of the layers, and what llama.cpp reads otherwise.

    Raises:
        FormatError: a layer (named), a setting or the tokenizer cannot be stated in the file.
    """
    config: Any = layout.model.config
    own = ckpt.folder.resolve()
    header = keys(config, own.parent.name if own.name == "checkpoint" else own.name)  # a run's is RUN/checkpoint
    tokenizer = open_tokenizer(ckpt)
    vocabulary, notes = values(tokenizer.own, config.vocab_size, tokenizer.generation_ends)
    tensors, types = stored(ckpt, layout)
    write(folder / FILE, {**header, **vocabulary}, tensors)
    kinds = ", ".join(f"{count} in {kind}" for kind, count in sorted(types.items()))
    return (f"{FILE}: quantized layers {kinds}, the others as they were", *notes)
