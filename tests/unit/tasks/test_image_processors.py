"""A preprocessor_config.json means what the class that wrote it means: compared with transformers' PIL processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from onnx import TensorProto
from PIL import Image

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import ConfigError
from forq.tasks import classify_images
from forq.tasks.images.preprocessor_file import preprocessing
from forq.tasks.images.processors import PROCESSORS
from tests import tiny_lm
from tests.unit.tasks.test_classify_images import arrays, graph, usual

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"{name} alone": {"image_processor_type": f"{name}ImageProcessor"} for name in PROCESSORS},
    **{
        f"{name} with a number as size": {
            "feature_extractor_type": f"{name}FeatureExtractor", "size": 48, "crop_size": 40, "resample": 2, **IMAGENET,
        }
        for name in PROCESSORS
    },
    "the name of a fast class": {"image_processor_type": "ViTImageProcessorFast", "size": [40, 32]},
    "ConvNext from 384": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 400}},
    "ConvNext's own share": {"image_processor_type": "ConvNextImageProcessor", "size": 60, "crop_pct": 0.95},
    "PoolFormer's square": {"image_processor_type": "PoolFormerImageProcessor", "size": [60, 60], "crop_size": 50},
    "PoolFormer's rectangle": {"image_processor_type": "PoolFormerImageProcessor", "size": [60, 70], "crop_size": 50},
    "a MobileViT that says it normalises": {
        "image_processor_type": "MobileViTImageProcessor", "do_normalize": True, **IMAGENET,
    },
    "a crop beyond the image": {"image_processor_type": "CLIPImageProcessor", "size": 40, "crop_size": 47},
    "levels as they are": {"image_processor_type": "DeiTImageProcessor", "do_rescale": False, "do_normalize": False},
    "nulls are false": {"image_processor_type": "BitImageProcessor", "do_center_crop": None, "do_rescale": None},
}  # fmt: skip


def photo(width: int, height: int) -> Image.Image:
    """An image with edges, a ramp and noise, which every filter and offset changes."""
    draw = np.random.default_rng(width)
    down, across = np.mgrid[:height, :width]
    ramp = np.stack([255 * down / height, 255 * across / width, 128 + 0 * down], axis=2)
    return Image.fromarray((ramp * 0.6 + draw.random((height, width, 3)) * 100).astype(np.uint8))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(131, 97), (90, 141)])
def test_images_are_prepared_as_the_class_prepares_them(variant: str, size: tuple[int, int], tmp_path: Path) -> None:
    settings = VARIANTS[variant]
    named = settings.get("image_processor_type", settings.get("feature_extractor_type"))
    name = named.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    processor = getattr(transformers, f"{name}Pil").from_dict(settings)
    given = graph(["n", 3, "h", "w"], {"scores": ["n", 4]}, tmp_path / "model.onnx")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    how = preprocessing(given, None, None, None)
    found = how.numbers(torch.from_numpy(how.levels(photo(*size))[None].copy()), given)[0].numpy()
    want = np.asarray(processor(photo(*size), return_tensors="np")["pixel_values"][0])
    assert found.shape == want.shape
    assert np.abs(found - want).max() <= 1e-5 * max(1.0, np.abs(want).max())


def test_what_a_class_saves_reads_as_the_class(tmp_path: Path) -> None:
    given = graph(["n", 3, "h", "w"], {"scores": ["n", 4]}, tmp_path / "model.onnx")
    for name in PROCESSORS:
        processor = getattr(transformers, f"{name}ImageProcessorPil")()
        processor.save_pretrained(tmp_path)
        how = preprocessing(given, None, None, None)
        found = how.numbers(torch.from_numpy(how.levels(photo(131, 97))[None].copy()), given)[0].numpy()
        assert np.abs(found - processor(photo(131, 97))["pixel_values"][0]).max() < 1e-5, name


@pytest.mark.parametrize("beside", [None, {"do_resize": False, "do_normalize": False}])
def test_the_whole_processors_file_comes_first_as_in_transformers(beside: Any, tmp_path: Path) -> None:
    """transformers 5 saves an image processor so where a tokenizer belongs to it."""
    given = graph(["n", 3, "h", "w"], {"scores": ["n", 4]}, tmp_path / "model.onnx")
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size=36)
    transformers.CLIPProcessor(processor, tiny_lm.tokenizer()).save_pretrained(tmp_path)
    if beside is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(beside))
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    want = np.asarray(theirs(photo(131, 97), return_tensors="np")["pixel_values"][0])
    named = str(tmp_path / "processor_config.json")
    for how in (preprocessing(given, None, None, None), preprocessing(given, named, None, None)):
        found = how.numbers(torch.from_numpy(how.levels(photo(131, 97))[None].copy()), given)[0].numpy()
        assert np.abs(found - want).max() < 1e-5


def test_a_file_above_the_folder_onnx_is_found_beside_a_configuration_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    graph(["n", 3, "h", "w"], {"scores": ["n", 4]}, tmp_path / "onnx" / "model.onnx")
    (tmp_path / "onnx" / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "BitImageProcessor"}))
    ckpt = Checkpoint.open(tmp_path / "onnx" / "model.onnx")
    assert ckpt.graph is not None and ckpt.folder == tmp_path / "onnx"
    assert preprocessing(GraphImages.of(ckpt.graph, ckpt.folder), None, None, None).shortest == 224


def test_a_whole_processors_file_without_images_leaves_them_to_their_own(tmp_path: Path) -> None:
    given = graph(["n", 3, "h", "w"], {"scores": ["n", 4]}, tmp_path / "model.onnx")
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    (tmp_path / "preprocessor_config.json").write_text('{"do_resize": false, "do_normalize": false}')
    assert preprocessing(given, None, None, None).size is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_processor_type": "EfficientNetImageProcessor"}, "class of an image processor among ViT, .*found"),
        ({"image_processor_type": "TimmWrapperImageProcessor", **IMAGENET}, r"set task\.preprocessor to it"),
        ({"feature_extractor_type": "ViT"}, "class of an image processor"),
        ({"image_processor_type": "ViTImageProcessor", "auto_map": {"AutoImageProcessor": "x.Own"}}, "found .auto_map"),
        ({"image_processor_type": "ViTImageProcessor", "crop_pct": 0.9}, "found .crop_pct"),
        ({"size": {"height": 8, "width": 8}, **IMAGENET}, "expected resample, whose defaults depend"),
        ({"do_resize": True, "resample": 2, **IMAGENET}, "expected size, whose defaults depend"),
        ({"size": 8, "resample": 2, **IMAGENET}, "expected a size .*found 8"),
        ({"crop_size": 8, **IMAGENET}, "expected do_center_crop"),
        ({"do_normalize": True}, r"expected image_mean, image_std.*task\.mean and task\.std"),
        ({}, "expected image_mean, image_std"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 8}}, "expected a size"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8, "longest_edge": 9}}, "a size"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"height": 8, "width": 8}}, "shortest_edge and no"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 8, "crop_pct": 0.0}, "crop_pct from"),
        ({"image_processor_type": "BitImageProcessor", "resample": None}, "expected resample"),
        ({"image_processor_type": "BitImageProcessor", "image_mean": None}, "expected image_mean"),
    ],
)
def test_what_a_file_leaves_open_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = graph(["n", 3, "h", "w"], {"scores": ["n", 4]}, tmp_path / "model.onnx")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=message):
        preprocessing(given, None, None, None)


def test_mean_and_std_may_be_given_by_hand_or_belong_to_the_graph(tmp_path: Path) -> None:
    settings = {"size": {"height": 8, "width": 8}, "resample": 2}
    given, path = usual(tmp_path), arrays(tmp_path / "a.npz")
    (given.folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert classify_images.open(path, given, seed=0, mean=0.5, std=0.25).describe()["mean"] == [0.5]
    with pytest.raises(ConfigError, match="expected image_mean, image_std"):
        classify_images.open(path, given, seed=0, mean=0.5)
    levels = graph(["n", 3, 8, 8], {"scores": ["n", 4]}, given.folder / "levels.onnx", TensorProto.UINT8)
    assert classify_images.open(path, levels, seed=0).levels.shape == (60, 8, 8, 3)


def test_a_shorter_side_without_a_crop_crops_nothing(tmp_path: Path) -> None:
    given = graph(["n", 3, 8, 8], {"scores": ["n", 4]}, tmp_path / "model.onnx")
    settings = {"size": {"shortest_edge": 8}, "resample": 2, **IMAGENET}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert preprocessing(given, None, None, None).levels(photo(20, 10)).shape == (8, 16, 3)
