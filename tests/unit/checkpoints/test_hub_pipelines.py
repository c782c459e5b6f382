"""A pipeline by its hub id, from a cache as the hub's own client keeps it, without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save_file

from forq.checkpoints import Checkpoint
from forq.errors import FormatError

INDEX = {
    "_class_name": "StableDiffusion3Pipeline",
    "_diffusers_version": "0.36.0",
    "feature_extractor": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "*": ["all", "of it"],
}

WANTED = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_3/model-00001-of-00002.safetensors",
    "text_encoder_3/model.safetensors.index.json",
    "tokenizer_3/special_tokens_map.json",
    "tokenizer_3/spiece.model",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/diffusion_pytorch_model.safetensors",
]
LEFT = [
    "README.md",
    "sd3.5_large.safetensors",
    "feature_extractor/preprocessor_config.json",
    "image_encoder/model.safetensors",
    "text_encoder/flax_model.msgpack",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder_3/model.bf16-00001-of-00002.safetensors",
    "text_encoder_3/model-00001-of-00002.bf16.safetensors",
    "text_encoder_3/model.safetensors.index.bf16.json",
    "text_encoders/clip_l.safetensors",
    "transformer/code.py",
    "transformer/diffusion_pytorch_model.safetensors.fp8.index.json",
    "vae/diffusion_pytorch_model.non_ema.safetensors",
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of ``some-one/drawn``, as links."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    kept = tmp_path / "hub" / "models--some-one--drawn"
    snapshot = kept / "snapshots" / ("0" * 40)
    (snapshot / "transformer").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "blobs").mkdir()
    save_file({"proj_out.weight": torch.ones(4, 4)}, kept / "blobs" / "weights")
    (kept / "blobs" / "config").write_text(json.dumps({"_class_name": "SD3Transformer2DModel"}))
    (kept / "blobs" / "index").write_text(json.dumps(INDEX))
    for name, blob in (
        ("model_index.json", "index"),
        ("transformer/config.json", "config"),
        ("transformer/diffusion_pytorch_model.safetensors", "weights"),
    ):
        (snapshot / name).symlink_to(kept / "blobs" / blob)
    return snapshot


def test_a_pipeline_is_found_in_the_cache(hub: Path) -> None:
    found = Checkpoint.open("some-one/drawn")
    assert found.folder == hub and found.contents.component == "transformer"
    assert torch.equal(found.read("proj_out.weight"), torch.ones(4, 4))


def test_components_alone_are_asked_of_the_hub_each_once_and_no_pickle(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(hub_id: str, **given: Any) -> str:
        asked.update(given)
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    Checkpoint.open("some-one/drawn")
    del asked["revision"]
    assert list(filter_repo_objects(WANTED + LEFT, **asked)) == WANTED


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (json.dumps({"_class_name": "FluxPipeline"}), "expected a pipeline among StableDiffusion3Pipeline, .*Flux"),
        ("[]", "found None"),
        ("{", "expected model_index.json to be JSON"),
    ],
)
def test_another_pipeline_is_refused_before_its_weights_are_fetched(hub: Path, monkeypatch, index, says) -> None:
    (hub / "model_index.json").unlink()
    (hub / "model_index.json").write_text(index)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *words, **given: pytest.fail("it was fetched"))
    with pytest.raises(FormatError, match=f"some-one/drawn: .*{says}"):
        Checkpoint.open("some-one/drawn")


def test_a_pipeline_whose_weights_are_pickles_is_refused(hub: Path) -> None:
    shutil.move(hub / "transformer" / "diffusion_pytorch_model.safetensors", hub / "transformer" / "x.bin")
    with pytest.raises(FormatError, match=r"some-one/drawn: expected safetensors, found none .* no pickles"):
        Checkpoint.open("some-one/drawn")
