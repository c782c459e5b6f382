"""A published model: SmolLM2-135M-Instruct in Q4_1, whose losses llama.cpp gave (tests/reference)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import forq
from forq.checkpoints import Checkpoint
from forq.cli import app
from tests.smollm2 import loss, tolerance

WANT = json.loads((Path(__file__).parents[2] / "reference" / "smollm2.json").read_text())


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Any:
    return forq.load(smollm2, device="cpu")


def test_its_loss_is_llama_cpps(model: Any) -> None:
    assert not model.unlike
    assert abs(loss(model, WANT["ids"]) - WANT["loss"]) < tolerance(len(WANT["ids"]))


def test_inspect_tells_its_layers(smollm2: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(smollm2), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["format"] == "gguf" and found["layers"] == 211


def test_a_step_changes_the_scales_and_no_other_byte(model: Any, smollm2: Path, tmp_path: Path) -> None:
    space = forq.space(model)
    ids = WANT["ids"][:8]
    optimizer = forq.QZO(space, lr=1e-4, eps=1e-3, clip=100.0, directions=1)
    optimizer.step(lambda: loss(model, ids))
    moved = space.exported()
    model.checkpoint.save_patched(tmp_path / "out", moved)
    theirs, ours = (np.fromfile(file, np.uint8) for file in (smollm2, tmp_path / "out" / smollm2.name))
    may_differ = np.zeros(len(theirs), bool)
    info = Checkpoint.open(smollm2).info
    for name in moved:
        piece, pitch = info[name].piece or info[name].nbytes, info[name].pitch or info[name].nbytes
        starts = np.arange(info[name].start, info[name].start + info[name].span, pitch)
        may_differ[starts[:, None] + np.arange(piece)] = True
    assert len(theirs) == len(ours)
    differs = theirs != ours
    assert differs.any() and not (differs & ~may_differ).any()
