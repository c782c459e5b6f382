"""Run in .venv-formats: onnxruntime's own quantizer turns a graph's products into MatMulNBits.

python tests/oracles/onnx/quantize.py IN.onnx OUT.onnx --bits 4 --block 32 [--asymmetric] [--level N] [--leave NODE …]
"""

from __future__ import annotations

import argparse
import logging

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

parser = argparse.ArgumentParser()
parser.add_argument("source")
parser.add_argument("out")
parser.add_argument("--bits", type=int, default=4)
parser.add_argument("--block", type=int, default=32)
parser.add_argument("--asymmetric", action="store_true")
parser.add_argument("--level", type=int)
parser.add_argument("--leave", nargs="*", default=[])
args = parser.parse_args()

logging.disable(logging.INFO)
quantizer = MatMulNBitsQuantizer(
    onnx.load(args.source),
    bits=args.bits,
    block_size=args.block,
    is_symmetric=not args.asymmetric,
    accuracy_level=args.level,
    nodes_to_exclude=args.leave,
)
quantizer.process()
onnx.save_model(quantizer.model.model, args.out)
