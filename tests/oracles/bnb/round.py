"""Run in .venv-formats: bitsandbytes rounds matrices.

round.py IN.safetensors OUT.safetensors   →   NAME.KIND.BLOCKSIZE.codes and ….absmax for every matrix
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import bitsandbytes as bnb
from safetensors.torch import load_file, save_file


def main() -> None:
    found = {}
    for name, matrix in load_file(sys.argv[1]).items():
        for kind in ("nf4", "fp4"):
            for blocksize in (64, 256):
                codes, state = bnb.functional.quantize_4bit(matrix, quant_type=kind, blocksize=blocksize)
                found[f"{name}.{kind}.{blocksize}.codes"] = codes
                found[f"{name}.{kind}.{blocksize}.absmax"] = state.absmax
    save_file(found, sys.argv[2])


if __name__ == "__main__":
    main()
