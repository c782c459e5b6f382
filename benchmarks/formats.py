"""What a step costs beside its forwards, and what a process holds, on checkpoints of any format.

    python -m benchmarks.formats CKPT …                        # a line of JSON for each
    python -m benchmarks.formats --make FOLDER awq …           # about 100 million random parameters, 4 bits, group 128,
                                                               # asymmetric, in these formats, and then the same
    python -m benchmarks.formats --blocks FOLDER [awq …]       # a random block of 12.6 million weights in every format
                                                               # (--out FILE keeps the lines as a list)

The bound on memory: the file, two float32 copies of the scales, one dense layer, and 300 MB; activations aside.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.fixtures import example, tiny

from benchmarks.bench import speed
from benchmarks.held import memory
from benchmarks.parts import random_llama
from forq.checkpoints import Checkpoint
from forq.models.convert.export import export
from forq.models.convert.quantize import quantize
from forq.models.layout import layout

BLOCKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "aqlm 2x8": ("aqlm", {}),
    "aqlm 1x16": ("aqlm", {"num_codebooks": 1, "nbits_per_codebook": 16}),
    "awq": ("awq", {}),
    "bnb nf4": ("bnb4", {}),
    "bnb int8": ("bnb8", {}),
    "compressed-tensors": ("compressed_tensors", {}),
    "gguf q4_0": ("gguf", {}),
    "gguf q8_0": ("gguf", {"types": ("Q8_0",)}),
    "gguf q4_k": ("gguf", {"types": ("Q4_K",)}),
    "gguf q6_k": ("gguf", {"types": ("Q6_K",)}),
    "gptq": ("gptq", {}),
    "hqq": ("hqq", {}),
    "onnx": ("onnx", {}),
    "torchao": ("torchao", {}),
}
"""Formats, and changes of their examples' settings."""


SHAPE = tiny.Shape(width=1024, hidden=2816, vocabulary=4096, heads=16, kv_heads=16, context=1024, group_size=64)
"""A block of 12.6 million weights in groups of 64, of a vocabulary of 4,096."""


def measured(path: Path, rows: int, length: int, rounds: int) -> dict[str, Any]:
    """Ratios and bytes of one checkpoint."""
    ckpt = Checkpoint.open(path)
    found = layout(ckpt)
    dense = max(spec.in_features * spec.out_features for spec in found.specs.values())
    scales = sum(ckpt.info[spec.live[0].name].nbytes // spec.live[0].dtype.itemsize for spec in found.specs.values())
    file_bytes = sum(info.nbytes for info in ckpt.info.values())
    held = memory(path, rows, length)["peak_above_imports_mb"]
    bound = round((file_bytes + 8 * scales + 4 * dense) / 1e6 + 300, 1)
    said = {"format": found.form.name if found.form else "float", "load": os.getloadavg()[0]}
    said |= {"file_mb": round(file_bytes / 1e6, 1), "peak_above_imports_mb": held, "bound_mb": bound}
    return said | {"within": held <= bound} | speed(path, None, rows, length, rounds)


def _block(folder: Path, form: str, changes: Mapping[str, Any]) -> Path:
    """A format's example at the size of :data:`SHAPE`."""
    # GGUF blocks of former reports share keys and values between heads.
    shape = replace(SHAPE, heads=4, kv_heads=2) if form == "gguf" else SHAPE
    return example(form, folder, shape=shape, **changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*")
    parser.add_argument("--blocks", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--make", type=Path)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    paths = [Path(name) for name in args.what]
    if args.make is not None:
        if not (args.make / "gptq").exists():
            floating, _ = random_llama(args.make)
            shutil.rmtree(args.make / "gptq")
            quantize(floating, args.make / "gptq", group_size=128, sym=False, checkpoint_format="gptq_v2")
        paths = [args.make / name for name in args.what]
        for path in paths:
            if not path.exists():
                export(args.make / "gptq", path, path.name)
    names = [path.name for path in paths]
    if args.blocks is not None:
        names = args.what or list(BLOCKS)
        paths = [_block(args.blocks / name.replace(" ", "-"), *BLOCKS[name]) for name in names]
    lines = []
    for name, path in zip(names, paths, strict=True):
        lines.append({"what": name} | measured(path, args.rows, args.length, args.rounds))
        print(json.dumps(lines[-1]), flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
