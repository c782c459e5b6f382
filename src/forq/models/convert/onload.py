"""``--quantize-on-load``: quantize a float checkpoint into the run's folder, then tune the result.

Codes are rounded to nearest, so the same checkpoint gives the same base, bit for bit, on every
machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from forq.checkpoints import Checkpoint
from forq.checkpoints.json_file import read_json
from forq.errors import ConfigError, FormatError
from forq.models.convert.layers import linear_layers
from forq.models.convert.quantize import quantize
from forq.plugins import registry

KNOWN = ("gptq2", "gptq3", "gptq4", "gptq8", "nf4", "fp4")
_GROUPS = (64, 32, 16)


def quantized(source: str | Path, how: str, out: Path, *, begun: bool = False) -> Path:
    """Make the quantized base in ``out``, or reuse the one an earlier call made there from the same checkpoint.

    A note beside it, ``base.json`` of a base, names the source by its digest.

    Args:
        source: a float checkpoint: a folder or a hub id.
        how: format and bits, one of :data:`KNOWN`. For gptq, the group size is the largest of 64,
            32 and 16 that divides the inputs of every layer, else a whole row. Blocks of nf4 and
            fp4 always have 64 values.
        out: folder of the base. Folders appear whole or not at all, so an existing one is complete.
        begun: a run has begun from the base. Its journal names the base by its digest, so an older
            base without a note is taken too.

    Raises:
        ConfigError: the format is unknown, a layer does not fit it, or the base that is there has
            another format or was made from another checkpoint.
        FormatError: the source is damaged or already quantized.
    """
    match = re.fullmatch(r"gptq([2348])|nf4|fp4", how)
    if match is None:
        raise ConfigError(
            f"quantize_on_load: expected one of {', '.join(KNOWN)}, found {how!r}{registry.nearest(how, KNOWN)}"
        )
    to, bits = ("gptq", int(match[1])) if match[1] else (how, 4)
    if out.is_dir():
        made = Checkpoint.open(out).config.get("quantization_config", {})
        present = f"gptq{made['bits']}" if "bits" in made else made.get("bnb_4bit_quant_type")
        if present != how:
            raise ConfigError(f"{out}: expected a base made as {how}, found {present}; remove it first")
        _require_source(source, out, begun=begun)
    else:
        ckpt = Checkpoint.open(source)
        if ckpt.config.get("quantization_config") is not None:
            raise FormatError(f"{ckpt.path}: expected a float checkpoint, found one that is quantized already: tune it")
        widths = {layer.columns for layer in linear_layers(ckpt).values()}
        size = next((size for size in _GROUPS if not any(columns % size for columns in widths)), -1)
        quantize(source, out, bits=bits, group_size=size if to == "gptq" else _GROUPS[0], to=to)
        note = {"source": _digest(ckpt), "name": ckpt.path.name}
        _note(out).write_text(json.dumps(note, ensure_ascii=False) + "\n", encoding="utf-8")
    return out


def _require_source(source: str | Path, out: Path, *, begun: bool) -> None:
    """Refuse a base of another checkpoint, or of one that is not known unless a run has begun from it."""
    if not _note(out).is_file():
        if begun:
            return
        raise ConfigError(
            f"{out}: expected {_note(out).name} beside it, a note on the checkpoint it was made from, found none; "
            f"remove {out}, so that it is made again"
        )
    note, ckpt = read_json(_note(out)), Checkpoint.open(source)
    if note.get("source") != _digest(ckpt):
        advice = "give that one" if begun else f"remove {out}, give that one"
        raise ConfigError(
            f"{out}: expected a base made from {ckpt.path}, found one made from another checkpoint, which was called "
            f"{note.get('name')!r}; {advice}, or choose another --out"
        )


def _note(out: Path) -> Path:
    return out.with_suffix(".json")


def _digest(ckpt: Checkpoint) -> str:
    """Digest of a checkpoint's tensors and settings; both are in the base."""
    return hashlib.sha256(
        f"{ckpt.digest()} {json.dumps(ckpt.config, sort_keys=True, default=str)}".encode()
    ).hexdigest()
