"""PEFT loads our adapters beside the GPTQ base, as its own library computes it, and gives our loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import forq
from forq.core import Move, Term
from forq.models import peft
from forq.models.load import load
from forq.models.quantize import quantize
from tests import tiny_checkpoints
from tests.oracles.test_gptq_oracle import IDS, LOSS, PYTHON, call

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-gptq: build it with tests/oracles/gptq/setup.sh"),
]


def loss(model: object) -> float:
    with torch.no_grad():
        logits = model(IDS).logits  # type: ignore[operator]
    return cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).item()


def test_peft_gives_our_loss(tmp_path: Path, compared: Any) -> None:
    base = tmp_path / "base"
    quantize(tiny_checkpoints.folder(tmp_path / "float", "llama", torch.float16), base, group_size=32, sym=True)
    plain, ours, folders = loss(load(base, "cpu")), [], []
    for bits, targets in ((8, "all-linear"), (3, "qv"), (None, ("q_proj", "down_proj"))):
        model = load(base, "cpu")
        forq.add_lora(model, bits=bits, targets=targets)
        space = forq.space(model, "lora", "spread" if bits is None else "cells")
        space.apply(Move((Term(3, 1.0 if bits is None else float(2 ** (bits - 1)), "rademacher"),)))
        adapter = tmp_path / f"adapter-{bits}"
        peft.write(adapter, model.checkpoint, model.adapters, space.exported())  # type: ignore[arg-type]
        folders.append(f"{base}::{adapter}")
        ours.append(loss(load(base, "cpu", adapter=adapter)))
        assert abs(ours[-1] - plain) > 100 * LOSS
    lines = call("loss.py", *folders, stdin=json.dumps(IDS.tolist())).splitlines()
    theirs = [json.loads(line.removeprefix("RESULT "))["loss"] for line in lines if line.startswith("RESULT ")]
    for here, there in zip(ours, theirs, strict=True):
        compared("peft", "loss; nats", abs(here - there))
    assert theirs == pytest.approx(ours, abs=1e-3)
