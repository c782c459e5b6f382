"""timm's config.json beside a network: images are prepared as timm prepares them, and its classes count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from forq.tasks.images.timm_file import label_names
from tests import edge_net

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SETTINGS = {"input_size": [3, edge_net.SIDE, edge_net.SIDE], "interpolation": "bicubic", "crop_pct": 0.35}
SETTINGS |= {"crop_mode": "center", "mean": MEAN, "std": STD}
NAMES = ["d", "c", "b", "a"]
SIZE = (43, 30)
"""Resized to 31 by 22, so that half a pixel is left beside the crop."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for n in range(4):
            levels = np.random.default_rng(n).integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)
            Image.fromarray(levels).save(tmp_path / "data" / name / f"{n}.png")
    return edge_net.quantized(tmp_path / "net", "qdq").parent


def opened(folder: Path, config: dict[str, Any], **options: Any) -> Any:
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", **config}))
    data = next(above / "data" for above in folder.parents if (above / "data").is_dir())
    return open_task(TaskConfig(name="classify-images", data=str(data), options=options), Checkpoint.open(folder), 0)


@pytest.mark.parametrize("config", [{"pretrained_cfg": SETTINGS}, SETTINGS], ids=["today", "before 0.9"])
def test_images_are_prepared_as_timm_prepares_them(config: dict[str, Any], folder: Path) -> None:
    task = opened(folder, {**config, "label_names": NAMES})
    assert task.names == tuple(NAMES)
    # timm: Resize(floor(8 / 0.35)), CenterCrop(8), ToTensor, Normalize. torchvision rounds half a pixel to even.
    short = int(edge_net.SIDE / 0.35)
    wide = short * SIZE[0] // SIZE[1]
    left, top = round((wide - 8) / 2), round((short - 8) / 2)
    for place, _, where in task.rows["train"]:
        picture = Image.open(where).resize((wide, short), Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.asarray(picture.crop((left, top, left + 8, top + 8)), dtype=np.float32) / 255)
        want = (x - torch.tensor(MEAN)) / torch.tensor(STD)
        assert torch.allclose(task.numbers(task.levels[[place]])[0], want.permute(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    "told",
    [
        {"pretrained_cfg": {**SETTINGS, "label_names": NAMES}},
        {**SETTINGS, "labels": NAMES},
        {"pretrained_cfg": SETTINGS, "label_names": {str(place): name for place, name in enumerate(NAMES)}},
    ],
    ids=["among the preprocessing", "the first versions", "by number"],
)
def test_the_classes_are_those_of_the_file_wherever_it_names_them(told: dict[str, Any], folder: Path) -> None:
    """Without them the folders' names would take the outputs in alphabetical order."""
    assert opened(folder, told).names == tuple(NAMES)


def test_an_output_without_a_name_is_called_by_its_number() -> None:
    config = {"architecture": "resnet18", "num_classes": 5, "label_names": {"1": "cat", "3": "dog"}}
    assert label_names(config) == ("0", "cat", "2", "dog", "4")
    assert label_names({**config, "label_names": {"one": "cat"}}) == ()


@pytest.mark.parametrize("share", [0.35, 0.875, 1.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_timm_itself_gives_the_same_numbers(folder: Path, interpolation: str, share: float) -> None:
    data = pytest.importorskip("timm.data")
    settings = {**SETTINGS, "interpolation": interpolation, "crop_pct": share}
    task = opened(folder, {"pretrained_cfg": settings, "label_names": NAMES})
    prepare = data.create_transform(**{**settings, "input_size": tuple(settings["input_size"])}, is_training=False)
    for place, _, where in task.rows["train"]:
        found = task.numbers(task.levels[[place]])[0]
        assert torch.allclose(found, prepare(Image.open(where).convert("RGB")), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"crop_mode": "squash"},
        {"interpolation": "random"},
        {"crop_pct": None},
        {"input_size": [3, 8, 9]},
        {"mean": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_not_followed_is_refused(change: dict[str, Any], folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a square input_size, .*, and set task\.preprocessor to it"):
        opened(folder, {"pretrained_cfg": SETTINGS | change})
    own = folder / "own.json"
    own.write_text('{"do_resize": true, "size": {"height": 8, "width": 8}, "resample": 2, "do_normalize": false}')
    assert opened(folder, {"pretrained_cfg": SETTINGS | change}, preprocessor=str(own)).levels.shape[1:3] == (8, 8)


def test_a_preprocessor_config_comes_first(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"do_resize": false, "do_normalize": false}')
    with pytest.raises(Exception, match="expected an image of 8 by 8, found 30 by 43"):
        opened(folder, {"pretrained_cfg": SETTINGS})
