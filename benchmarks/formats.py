"""What a step costs beside its forwards, and what a process holds, on checkpoints of any format.

    python -m benchmarks.formats CKPT …                        # a line of JSON for each
    python -m benchmarks.formats --make FOLDER awq …           # about 100 million random parameters, 4 bits, group 128,
                                                               # asymmetric, in these formats, and then the same

The bound on memory: the file, two float32 copies of the scales, one dense layer, and 300 MB; activations aside.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.bench import memory, random_llama, speed
from forq.formats.checkpoint import Checkpoint
from forq.models.export import export
from forq.models.load import layout
from forq.models.quantize import quantize


def measured(path: Path, rows: int, length: int, rounds: int) -> dict[str, Any]:
    """Ratios and bytes of one checkpoint."""
    ckpt = Checkpoint.open(path)
    found = layout(ckpt)
    dense = max(spec.in_features * spec.out_features for spec in found.specs.values())
    scales = sum(ckpt.info[spec.live[0].name].nbytes // spec.live[0].dtype.itemsize for spec in found.specs.values())
    file_bytes = sum(info.nbytes for info in ckpt.info.values())
    held = memory(path, rows, length)["peak_above_imports_mb"]
    bound = round((file_bytes + 8 * scales + 4 * dense) / 1e6 + 300, 1)
    said = {"format": found.form.__name__.rpartition(".")[2] if found.form else "float", "load": os.getloadavg()[0]}
    said |= {"file_mb": round(file_bytes / 1e6, 1), "peak_above_imports_mb": held, "bound_mb": bound}
    return said | {"within": held <= bound} | speed(path, None, rows, length, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+")
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
    for path in paths:
        print(json.dumps(measured(path, args.rows, args.length, args.rounds)), flush=True)


if __name__ == "__main__":
    main()
