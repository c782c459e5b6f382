"""GGUF: every architecture of the table against transformers' class with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf.architectures import ARCHITECTURES, REFUSED
from forq.models.load import load
from tests.fixtures.gguf_architectures import ROWS, made, write

IDS = torch.randint(0, 320, (1, 40), generator=torch.Generator().manual_seed(2))


def outputs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        answer = model(IDS)
    return answer.logits if hasattr(answer, "logits") else answer.last_hidden_state


@pytest.mark.parametrize("name", ROWS)
def test_logits_are_those_of_transformers_class(name: str, tmp_path: Path) -> None:
    theirs = made(name)
    want = outputs(theirs)
    file = write(tmp_path / "tiny.gguf", name, theirs)
    model = load(file, device="cpu")
    assert not model.unlike
    assert float((outputs(model) - want).abs().max()) < 2e-5 * float(want.abs().max())


def test_every_entry_has_a_row() -> None:
    assert {name.partition(",")[0] for name in ROWS} == set(ARCHITECTURES)
    assert not ARCHITECTURES.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", ROWS)
def test_what_is_read_and_written_back_is_the_same_file(name: str, tmp_path: Path) -> None:
    types = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32)
    file = write(tmp_path / "tiny.gguf", name, made(name), types)
    ckpt = Checkpoint.open(file)
    saved = ckpt.save_patched(tmp_path / "saved", {tensor: ckpt.read(tensor) for tensor in ckpt.info})
    assert (saved.path / file.name).read_bytes() == file.read_bytes()
