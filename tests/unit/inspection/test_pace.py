"""The matrices an estimate of time counts are those of the model, each as often as it is multiplied by."""

from __future__ import annotations

from pathlib import Path

import pytest

from forq.checkpoints import Checkpoint
from forq.inspection import pace
from tests.fixtures import gguf, gptq


def test_every_matrix_counts_once(tmp_path: Path) -> None:
    found = pace.matrices(Checkpoint.open(gptq.example(tmp_path / "gptq")))
    # Queries and outputs; keys and values; gate and up; down; the head in float. The embedding multiplies nothing.
    assert found == {(32, 32): 2, (16, 32): 2, (48, 32): 2, (32, 48): 1, (64, 32): 1}


def test_the_estimate_is_operations_over_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "operations_a_second", lambda shape, tokens, device: 1000.0)
    ckpt = Checkpoint.open(gptq.example(tmp_path / "gptq"))
    weights = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32 + 64 * 32
    assert pace.seconds_a_forward(ckpt, tokens=10) == 2 * 10 * weights / 1000


@pytest.mark.parametrize("tied", [True, False])
def test_a_quantized_embedding_is_a_product_where_the_head_is_tied_to_it(tied: bool, tmp_path: Path) -> None:
    found = pace.matrices(Checkpoint.open(gguf.example(tmp_path / "gguf", types=("Q8_0",), tied=tied)))
    assert found[(64, 32)] == 1
