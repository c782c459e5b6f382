"""ResNet-20, quantized by onnxruntime: a real file, real images, and the session that every program makes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import forq
from forq.models.leaves import trainable
from forq.models.saved import write
from tests import edge_net

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("FORQ_DATA", ""))


@pytest.mark.skipif(not (DATA / "resnet20-cifar10").is_dir(), reason="FORQ_DATA names no folder with resnet20-cifar10")
def test_what_trains_is_what_the_saved_file_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import edge

    x, y = edge.cifar10(DATA, 50)
    some = torch.from_numpy((x[:100] / np.float32(255)).transpose(0, 3, 1, 2).copy())
    for form, path in edge.quantized(DATA, tmp_path).items():
        model = forq.load(path, device="cpu")
        assert (model(some).argmax(dim=1).numpy() == y[:100]).mean() > 0.85
        moved = {}
        for leaf in trainable(model, "scales"):
            moved[leaf.name] = leaf.read() * (1 + 0.1 * torch.sin(torch.arange(leaf.shape.numel())).view(leaf.shape))
            leaf.write(moved[leaf.name])
        assert sum(len(scales) for scales in moved.values()) == 698
        trained = model(some).numpy()
        assert model.training_session == "fused"
        write(model.checkpoint, moved, tmp_path / f"{form}-out")
        saved = tmp_path / f"{form}-out" / path.name
        onnx.checker.check_model(onnx.load(str(saved)))
        assert np.array_equal(edge_net.run(saved, some.numpy()), trained)
        assert edge.changed(path, saved) == {"float": 40 if form == "qdq" else 20, "int32": 20}
