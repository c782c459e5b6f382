"""A published model: Gemma 3 270M in Q4_K_M, whose loss llama.cpp gave (tests/reference)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forq
from forq.checkpoints import Checkpoint
from tests.smollm2 import loss, tolerance

WANT = json.loads((Path(__file__).parents[2] / "reference" / "gemma3.json").read_text())


@pytest.fixture(scope="module")
def model(gemma3: Path) -> Any:
    return forq.load(gemma3, device="cpu")


def test_its_loss_is_llama_cpps(model: Any) -> None:
    assert not model.unlike
    assert abs(loss(model, WANT["ids"]) - WANT["loss"]) < tolerance(len(WANT["ids"]))


@pytest.mark.parametrize("kind", ["scales", "norms"])
def test_a_step_changes_what_moves_and_no_other_byte(kind: str, model: Any, gemma3: Path, tmp_path: Path) -> None:
    space = forq.space(model, kind)
    ids = WANT["ids"][:8]
    optimizer = forq.QZO(space, lr=1e-4, eps=1e-3, clip=100.0, directions=1)
    optimizer.step(lambda: loss(model, ids))
    moved = space.exported()
    model.checkpoint.save_patched(tmp_path / "out", moved)
    theirs, ours = (np.fromfile(file, np.uint8) for file in (gemma3, tmp_path / "out" / gemma3.name))
    may_differ = np.zeros(len(theirs), bool)
    info = Checkpoint.open(gemma3).info
    for name in moved:
        piece, pitch = info[name].piece or info[name].nbytes, info[name].pitch or info[name].nbytes
        starts = np.arange(info[name].start, info[name].start + info[name].span, pitch)
        may_differ[starts[:, None] + np.arange(piece)] = True
    assert len(theirs) == len(ours)
    differs = theirs != ours
    assert differs.any() and not (differs & ~may_differ).any()
