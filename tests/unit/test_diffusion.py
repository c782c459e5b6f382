"""Diffusion: noise levels, captions and pictures, the cache, the denoiser's shape."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from forq.core import ConfigError, DataError, FormatError
from forq.formats.checkpoint import Checkpoint
from forq.models import denoiser
from forq.models.encoders import Encoders
from forq.noise import Bits
from forq.tasks import text_to_image
from forq.tasks._noised import Noised, epsilon, flow, normal, sigmas, stratified, uniform
from forq.tasks._pictures import pixels, read, read_splits
from tests import tiny_pipeline

CPU = torch.device("cpu")


def test_sigma_is_the_shifted_logistic_normal():
    u = torch.tensor([0.5, 0.8413447460685429, 1e-6], dtype=torch.float64)
    plain = sigmas(u)
    assert plain[0] == 0.5
    assert plain[1] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    assert torch.equal(sigmas(u, 3.0), (3 * plain.double() / (1 + 2 * plain.double())).float())
    many = torch.logit(sigmas(uniform(Bits(1, 2), 20_000)).double())
    assert abs(float(many.mean())) < 0.03 and abs(float(many.std()) - 1) < 0.03


def test_strata_hold_one_point_each_and_their_mean_varies_less():
    u = stratified(Bits(3, 4), 16)
    assert (u * 16).long().tolist() == list(range(16))
    means = torch.stack(
        [torch.stack([draw(Bits(seed, 9), 16).mean() for seed in range(200)]) for draw in (stratified, uniform)]
    )
    assert abs(float(means[0].mean()) - 0.5) < 0.005
    assert means[0].std() < means[1].std() / 8


def test_flow_matching_is_zero_for_the_velocity_and_cut_into_forwards_alike():
    x0, noise = normal(Bits(1, 1), (5, 1, 4, 4)), normal(Bits(1, 2), (5, 1, 4, 4))
    level = sigmas(stratified(Bits(1, 3), 5))
    sizes = []

    def loss(most, off):
        batch = Noised(x0, noise, level, torch.zeros(5, 2, 3), torch.zeros(5, 3), most)

        def model(x, texts, pooled, sigma):
            sizes.append(len(x))
            s = sigma[:, None, None, None]
            here = next(n for n in range(5) if level[n] == sigma[0])
            some = slice(here, here + len(x))
            assert torch.allclose(x, (1 - s) * x0[some] + s * noise[some])
            return noise[some] - x0[some] + off

        return flow(model, batch, CPU, torch.float32)

    assert loss(5, 0.0).max() < 1e-12
    assert torch.allclose(loss(2, 0.5), torch.full((5,), 0.25)) and sizes == [5, 2, 2, 1]


def test_epsilon_prediction_scores_the_noise():
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 10), 0)
    x0, noise, t = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2), torch.tensor([0, 4, 9])
    exact = epsilon(lambda x, t: x / (1 - alpha_bar[t]).sqrt()[:, None, None, None], x0, noise, t, alpha_bar)
    assert exact.max() < 1e-10
    assert torch.equal(epsilon(lambda x, t: 0 * x, x0, noise, t, alpha_bar), torch.ones(3))


def test_captions_from_three_layouts(tmp_path):
    rows = tiny_pipeline.digits(tmp_path / "rows", 4)
    assert [one.caption for one in read(rows)] == ["a one", "a two", "a three", "a one"]
    beside = tmp_path / "beside"
    beside.mkdir()
    Image.new("RGB", (8, 8)).save(beside / "x.png")
    with pytest.raises(DataError, match=r"x\.png: expected its caption in x\.txt"):
        read(beside)
    (beside / "x.txt").write_text("a thing\n")
    assert [one.caption for one in read(beside)] == ["a thing"]
    classes = tmp_path / "classes" / "train" / "red_square"
    classes.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(classes / "y.jpg")
    assert [one.caption for one in read_splits(tmp_path / "classes")["train"]] == ["red square"]
    (rows / "metadata.jsonl").write_text('{"file_name": "00.png"}\n')
    with pytest.raises(DataError, match="line 1: expected file_name and one of text, caption, prompt"):
        read(rows)
    (rows / "metadata.jsonl").write_text(json.dumps({"file_name": "../out.png", "text": "x"}) + "\n")
    with pytest.raises(DataError, match="expected the name of a file in"):
        read(rows)


def test_pictures_of_every_mode_become_rgb_squares(tmp_path):
    half = np.zeros((10, 20, 3), np.uint8)
    half[:, :10] = 255
    turned = Image.fromarray(half)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown a quarter turn on
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    shown = pixels(tmp_path / "turned.jpg", 10)
    assert shown[:, 0].mean() > 0.8 and shown[:, -1].mean() < -0.8
    Image.new("RGBA", (7, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert pixels(tmp_path / "clear.png", 4).min() == 1
    Image.new("L", (5, 5), 51).save(tmp_path / "grey.png")
    assert torch.allclose(pixels(tmp_path / "grey.png", 4), torch.full((3, 4, 4), -0.6), atol=1e-6)
    Image.fromarray(np.full((5, 5), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert pixels(tmp_path / "deep.png", 4).min() == 1
    (tmp_path / "torn.png").write_bytes((tmp_path / "grey.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"torn\.png: expected a picture Pillow can read"):
        pixels(tmp_path / "torn.png", 4)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return tiny_pipeline.pipeline(tmp_path_factory.mktemp("pipeline") / "tiny")


def encoders(pipeline, cache, read=pixels):
    return Encoders(Checkpoint.open(pipeline), cache, CPU, read)


def test_the_cache_is_filled_once_resumes_and_refuses_another_models(pipeline, tmp_path):
    data, cache, asked = read(tiny_pipeline.digits(tmp_path / "data", 6)), tmp_path / "cache", []

    def counted(path, size):
        if len(asked) == 3:
            raise DataError("stopped here")
        asked.append(path)
        return pixels(path, size)

    with pytest.raises(DataError):
        encoders(pipeline, cache, counted).prepare(data, 28, 1)
    asked.clear()
    first = encoders(pipeline, cache, counted)
    first.prepare(data, 28, 1)
    assert len(asked) == 3, "three were kept from the first try"
    expected = pixels(data[0].path, 28)[:1]
    vae = json.loads((pipeline / "vae" / "config.json").read_text())
    shown = (expected - vae["shift_factor"]) * vae["scaling_factor"]
    assert (first.latent(data[0]) - shown).abs().max() < 1e-3
    text, pooled = first.text("a two")
    assert text.shape == (6, 64) and pooled.shape == (64,)
    assert not torch.equal(text, first.text("")[0])
    again = encoders(pipeline, cache, None)
    again.prepare(data, 28, 1)
    assert again.digest == first.digest
    other = encoders(pipeline, cache, pixels)
    other.prepare(data, 24, 1)
    assert other.digest != first.digest
    for file in next(cache.glob("latents-*")).glob("*.safetensors"):
        theirs = next(folder for folder in cache.glob("latents-*") if folder != file.parent) / file.name
        theirs.write_bytes(file.read_bytes())
    with pytest.raises(FormatError, match="expected a cache of the model of digest"):
        for each in (first, other):
            each.latent(data[0])


@pytest.mark.parametrize(("size", "words"), [(30, "multiple of 4"), (56, "at most 28")])
def test_a_resolution_that_does_not_fit_is_refused(pipeline, tmp_path, size, words):
    with pytest.raises(ConfigError, match=words):
        encoders(pipeline, tmp_path / "cache").prepare([], size, 1)


def test_batches_are_a_function_of_seed_and_step(pipeline, tmp_path):
    data = tiny_pipeline.digits(tmp_path / "data")

    def task(**changes):
        settings = {"seed": 3, "resolution": 28, "batch_rows": 4, "text_tokens": 1, "caption_dropout": 0.5} | changes
        return text_to_image.open(data, encoders(pipeline, tmp_path / "cache"), **settings)

    one, other = task(), task()
    for step in (5, 0, 5):
        a, b = one.batch(step), other.batch(step)
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("latents", "noise", "level", "texts"))
    assert not torch.equal(one.batch(0).noise, one.batch(1).noise)
    assert one.digest == other.digest != task(caption_dropout=0.0).digest
    assert sum(map(len, one.rows.values())) == 24 and len(one.rows["validation"]) == 2
    held = [row.digest for split in one.rows.values() for row in split]
    assert len(set(held)) == 24, "no picture stands in two splits"


def test_an_unknown_pipeline_is_named(pipeline, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(FormatError, match="expected a pipeline among StableDiffusion3Pipeline, found 'FluxPipeline'"):
        Checkpoint.open(tmp_path)


def test_the_shape_of_sd35_large_is_counted_without_memory():
    config = {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 38,
        "attention_head_dim": 64, "num_attention_heads": 38, "joint_attention_dim": 4096,
        "caption_projection_dim": 2432, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
        "qk_norm": "rms_norm",
    }  # fmt: skip
    model = denoiser.skeleton(config, torch.bfloat16)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(8.06e9, rel=0.001)
