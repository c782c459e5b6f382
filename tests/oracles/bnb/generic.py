"""Run in .venv-formats: bitsandbytes without its vectorised kernels, on any processor.

On processors with AVX-512 bitsandbytes 0.50.2 dequantises row by row, and reads other blocks' magnitudes where a row is
no whole number of blocks; with bfloat16 products it also refuses widths that are no multiples of 32. Its generic
kernels are right for every shape.
"""

from __future__ import annotations

import bitsandbytes as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.backends.utils import _get_4bit_code


def _dequantised(packed, absmax, blocksize, quant_type, shape, dtype):  # the signature bitsandbytes registers
    code = _get_4bit_code(quant_type, packed.device)
    return _dequantize_4bit_compute(packed.view(torch.uint8).reshape(-1), absmax, code, blocksize, shape, dtype)


_LIBRARY = torch.library.Library("bitsandbytes", "IMPL")  # for as long as the process lives
_LIBRARY.impl("dequantize_4bit", _dequantised, "CPU", allow_override=True)
bnb.nn.modules.has_avx512bf16 = lambda: False
