"""Files of ``torch.export`` are loaded without unpickling anything but tensors."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from forq.errors import FormatError
from forq.plugins.networks import open_network


class Grey(torch.nn.Module):
    """The mean of a picture, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean(dim=(2, 3)) * self.weight


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    file = tmp_path / "grey.pt2"
    torch.export.save(torch.export.export(Grey(), (torch.zeros(2, 3, 8, 8),)), file)
    return file


def evil(file: Path, mark: Path) -> Path:
    """The same program, with a weight that is a pickle."""
    buffer = io.BytesIO()
    torch.save(Evil(mark), buffer)
    out = file.with_name("evil.pt2")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            body = old.read(name)
            if name.endswith("weights_config.json"):
                config = json.loads(body)
                for entry in config["config"].values():
                    entry["use_pickle"] = True
                body = json.dumps(config).encode()
            elif "/data/weights/" in name and not name.endswith(".json"):
                body = buffer.getvalue()
            new.writestr(name, body)
    return out


@pytest.mark.parametrize("asked", [{}, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}])
def test_a_pickled_weight_is_refused_and_nothing_of_it_runs(
    asked: dict[str, str], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    before, load = dict(os.environ), torch.load
    with pytest.raises(FormatError, match=r"torch\.export cannot load it"):
        open_network(str(evil(exported, tmp_path / "mark")), "task.features")
    assert not (tmp_path / "mark").exists() and torch.load is load and dict(os.environ) == before
    assert open_network(str(exported), "task.features").predict is not None


def test_the_pickle_would_run_elsewhere(exported: Path, tmp_path: Path) -> None:
    """What the test above refuses is a danger: torch alone runs it."""
    with contextlib.suppress(Exception):
        torch.export.load(evil(exported, tmp_path / "mark"))
    assert (tmp_path / "mark").exists()
