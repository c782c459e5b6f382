"""PEFT loads our adapters beside the GPTQ base, as its own library computes it, and gives our loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import forq
from forq.models.adapters import peft
from forq.models.adapters.lora import factors_of
from forq.models.convert.quantize import quantize
from forq.models.load import load
from forq.scalars.moves import Move, Term
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


WHOLE = "model.layers.0.self_attn.q_proj"
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "alpha of single layers": {"alpha_pattern": {WHOLE: 40, "q_proj": 5, "proj": 99}},
    "rank of single layers": {"r": 3, "rank_pattern": {"q_proj": 8, "down_proj": 8}},
    "all at once": {"r": 3, "rank_pattern": {"q_proj": 8, "down_proj": 8}, "use_rslora": True},
    "eva": {"init_lora_weights": "eva"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian"},
}


def test_settings_of_an_adapter_mean_what_peft_says(tmp_path: Path) -> None:
    base = tmp_path / "base"
    quantize(tiny_checkpoints.folder(tmp_path / "float", "llama", torch.float16), base, group_size=32, sym=True)
    model = load(base, "cpu")
    forq.add_lora(model, alpha=96.0, targets=("q_proj", "down_proj"))
    space = forq.space(model, "lora", "spread")
    space.apply(Move((Term(3, 1.0, "rademacher"),)))
    ours, folders = [], []
    for name, settings in SETTINGS.items():
        adapter = tmp_path / name.replace(" ", "-")
        peft.write(adapter, model.checkpoint, model.adapters, space.exported())  # type: ignore[arg-type]
        config = json.loads((adapter / peft.CONFIG).read_text())
        (adapter / peft.CONFIG).write_text(json.dumps(config | settings))
        held_by = load(base, "cpu", adapter=adapter)
        again = tmp_path / f"{adapter.name}-again"  # as a run that went on from it would write it
        peft.write(again, model.checkpoint, held_by.adapters, factors_of(held_by.adapters))
        folders += [f"{base}::{adapter}", f"{base}::{again}"]
        ours += [loss(held_by), loss(load(base, "cpu", adapter=again))]
        assert ours[-1] == ours[-2]
    assert len({round(value, 3) for value in ours}) == 3  # plain, by the root of the rank, and with an alpha of its own
    lines = call("loss.py", *folders, stdin=json.dumps(IDS.tolist())).splitlines()
    theirs = [json.loads(line.removeprefix("RESULT "))["loss"] for line in lines if line.startswith("RESULT ")]
    assert theirs == pytest.approx(ours, abs=1e-3)
