"""Run in .venv-formats: plain onnxruntime on a file, as its users run it; logits of the token ids on stdin as JSON.

python tests/oracles/onnx/answer.py MODEL.onnx OUT.npy < ids.json
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime

ids = np.array(json.load(sys.stdin), np.int64)
rows, length = ids.shape
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given = {
    "input_ids": ids,
    "attention_mask": np.ones_like(ids),
    "position_ids": np.broadcast_to(np.arange(length), (rows, length)),
}
np.save(sys.argv[2], session.run(["logits"], given)[0])
