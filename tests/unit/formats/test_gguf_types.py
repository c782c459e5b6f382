"""GGUF's block types: every one is gguf-py's matrix bit for bit, and a scale that moves changes its own bits alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from forq.checkpoints.containers.gguf.kinds import BLOCKS, Kind
from forq.layers.linear import QuantLinear
from forq.models.leaves import trainable
from forq.models.load import load
from tests.fixtures import gguf as made
from tests.fixtures.gguf_write import write_gguf
from tests.unit.formats.test_gguf import held

EXTREMES = [0.0, -0.0, 65504.0, -65504.0, 6e-8, -6e-8, 6.1e-5]


def blocks(kind: Kind, rows: int, count: int) -> np.ndarray:
    """uint8 (rows, bytes of a row): random codes and factors, and finite scales of every size."""
    draw = np.random.default_rng(kind.nbytes)
    raw = draw.integers(0, 256, (rows * count, kind.nbytes), dtype=np.uint8)
    for field in kind.live:
        scales = (10.0 ** draw.uniform(-7, 4, len(raw)) * draw.choice([-1, 1], len(raw))).astype(np.float16)
        scales[: len(EXTREMES)] = EXTREMES
        if field.mask:
            words = raw[:, field.start :].view(np.uint16)
            for place in range(4):
                words[:, place] = words[:, place] & 0xFFF | (scales.view(np.uint16) >> 4 * place & 15) << 12
        else:
            raw[:, field.start : field.start + 2] = scales.view(np.uint8).reshape(-1, 2)
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("number", BLOCKS, ids=lambda number: BLOCKS[number].name)
def test_a_matrix_is_gguf_pys_bit_for_bit_before_and_after_its_scales_move(number: int, tmp_path: Path) -> None:
    kind = BLOCKS[number]
    raw = blocks(kind, 256, 256 // kind.size)
    changed = {"blk.0.ffn_gate.weight": (number, (256, 256), torch.from_numpy(raw))}
    path = example_with(tmp_path / "a", changed)
    model = load(path, device="cpu", kernel="reference")
    assert same_matrix(model.get_submodule("model.layers.0.mlp.gate_proj"), raw, number)
    moved = {leaf.name: leaf.read() * 0.75 for leaf in trainable(model) if "gate_proj" in leaf.name}
    assert len(moved) == len(kind.live)
    model.checkpoint.save_patched(tmp_path / "b", moved)
    before, after = path.read_bytes(), (tmp_path / "b" / path.name).read_bytes()
    start = before.index(raw.tobytes())
    own = np.zeros(kind.nbytes, np.uint8)
    for field in kind.live:
        own[field.start : field.start + max(len(field.mask), 2)] |= np.frombuffer(field.mask or b"\xff\xff", np.uint8)
    assert before[:start] == after[:start] and before[start + raw.size :] == after[start + raw.size :]
    new = np.frombuffer(after[start : start + raw.size], np.uint8).reshape(256, -1)
    assert not ((new ^ raw).reshape(-1, kind.nbytes) & ~own).any() and (new != raw).any()
    assert same_matrix(load(tmp_path / "b", device="cpu").get_submodule("model.layers.0.mlp.gate_proj"), new, number)


def example_with(folder: Path, changed: dict[str, tuple[int, tuple[int, int], torch.Tensor]]) -> Path:
    """The example of one block, 256 wide, with other matrices in it."""
    path = made.example(folder, width=256, hidden=256)
    values, tensors = held(path)
    write_gguf(path, values, [(one[0], *changed[one[0]]) if one[0] in changed else one for one in tensors])
    return path


def same_matrix(layer: torch.nn.Module, raw: np.ndarray, number: int) -> bool:
    assert isinstance(layer, QuantLinear)
    want = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(number))
    assert np.isfinite(want).all()
    return np.array_equal(layer.dequantise().numpy().view(np.int32), want.astype(np.float32).view(np.int32))


def test_a_type_with_a_grid_asks_for_the_package_that_has_it(tmp_path: Path) -> None:
    path = made.example(tmp_path / "a", types=("IQ3_S",), width=256, hidden=256)
    code = (
        f"import sys; sys.modules['gguf'] = None\nfrom forq.models.load import load\nload({str(path)!r}, device='cpu')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode and "IQ3_S: expected the package gguf" in done.stderr
