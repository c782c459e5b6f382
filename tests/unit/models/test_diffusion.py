"""Noise levels, objectives, pictures and the cache of a diffusion model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from forq.checkpoints import Checkpoint
from forq.coordinates.domain import DOMAINS
from forq.coordinates.space import Space
from forq.errors import ConfigError, DataError, FormatError
from forq.models.convert.onload import quantized
from forq.models.diffusion import encoders
from forq.models.diffusion.denoiser import library, skeleton
from forq.models.diffusion.encoders import Encoders
from forq.models.leaves import trainable
from forq.models.load import load
from forq.noise.bits import Bits
from forq.recipes import recipe
from forq.runs import noise_sharing
from forq.runs.config import TaskConfig, complete
from forq.runs.oracle_choice import measures
from forq.runs.oracles.curvature import across, neighbours
from forq.runs.settled import NOISED, settled_method
from forq.scalars.moves import OUTPUTS, Move, Term
from forq.tasks import account, text_to_image
from forq.tasks.images import noised as _noised
from forq.tasks.images.pictures import pixels, read_splits
from forq.tasks.rows.taken import Whole
from tests import tiny_pipeline

CPU = torch.device("cpu")

LARGE = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 38,
    "num_attention_heads": 38,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 2432,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}
"""Stable Diffusion 3.5 Large."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return tiny_pipeline.save(tmp_path_factory.mktemp("pipeline") / "sd3")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_pipeline.pictures(tmp_path_factory.mktemp("pictures"))


def opened(pipeline, data, cache, seed=0, **settings):
    encoded = Encoders(Checkpoint.open(pipeline), cache, CPU, pixels)
    told = {"resolution": 28, "batch_rows": 4, "text_tokens": tiny_pipeline.TEXT_TOKENS, "samples": 0} | settings
    return text_to_image.open(data, encoded, seed=seed, **told)


def test_noise_levels_are_the_logit_normal_law_shifted_as_the_scheduler_shifts():
    places = torch.tensor([0.1586552539, 0.5, 0.8413447461], dtype=torch.float64)
    assert torch.allclose(_noised.sigmas(places), torch.sigmoid(torch.tensor([-1.0, 0.0, 1.0])), atol=1e-6)
    scheduler = library().FlowMatchEulerDiscreteScheduler(shift=3.0)
    plain = torch.linspace(1.0, 0.001, 1000)
    ours = _noised.sigmas(torch.special.ndtr(torch.logit(plain[1:].double())), shift=3.0)
    assert torch.allclose(ours, scheduler.sigmas[1:], atol=2e-3)


def test_stratified_places_lie_one_in_each_part_and_their_mean_varies_far_less():
    found = torch.stack([_noised.stratified(Bits(seed, 1), 8) for seed in range(400)])
    assert ((found * 8).floor() == torch.arange(8)).all()
    free = torch.stack([_noised.uniform(Bits(seed, 2), 8) for seed in range(400)])
    assert found.mean() == pytest.approx(0.5, abs=0.01)
    # Independent places: variance 1/12n; one in each part: 1/12n³.
    assert free.mean(dim=1).var() > 20 * found.mean(dim=1).var()


def test_the_flow_loss_is_what_it_says_in_forwards_of_any_size():
    torch.manual_seed(0)
    x0, noise = torch.randn(5, 2, 4, 4), torch.randn(5, 2, 4, 4)
    sigma = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    texts, pooled = torch.randn(5, 3, 6), torch.randn(5, 6)

    def model(x, texts, pooled, level):
        return x * level[:, None, None, None] + pooled.mean(dim=1)[:, None, None, None] + texts.sum()

    def loss(most, texts=texts * 0):
        return _noised.flow(model, _noised.Noised(x0, noise, sigma, texts, pooled, most), CPU, torch.float32)[0]

    mixed = torch.stack([(1 - s) * a + s * b for s, a, b in zip(sigma, x0, noise, strict=True)])
    want = (model(mixed, texts * 0, pooled, sigma) - (noise - x0)).square().mean(dim=(1, 2, 3))
    assert torch.allclose(loss(5), want) and torch.allclose(loss(2), want)
    batch = _noised.Noised(x0, noise, sigma, texts, pooled, 5)
    errors, outputs = _noised.flow(lambda *_: noise - x0, batch, CPU, torch.float32)
    assert torch.equal(errors, torch.zeros(5)) and torch.equal(outputs, noise - x0)


def test_the_noise_loss_is_what_it_says():
    torch.manual_seed(0)
    x0, noise, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([0, 4, 9])
    alpha_bar = torch.linspace(0.99, 0.1, 10)
    seen = []

    def model(x, t):
        seen.append(x)
        return x * 0

    assert torch.allclose(_noised.epsilon(model, x0, noise, t, alpha_bar), noise.square().mean(dim=(1, 2, 3)))
    kept = alpha_bar[t].view(3, 1, 1, 1)
    assert torch.allclose(seen[0], kept.sqrt() * x0 + (1 - kept).sqrt() * noise)


def test_pictures_of_any_mode_and_size_are_square_rgb(tmp_path):
    grey = np.tile(np.linspace(0, 255, 40, dtype=np.uint8), (20, 1))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    clear = Image.new("RGBA", (9, 7), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    turned = Image.new("RGB", (16, 32), "black")
    turned.paste("white", (0, 16, 16, 32))
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.jpg", exif=exif)
    for name in ("grey.png", "clear.png", "turned.jpg"):
        found = pixels(tmp_path / name, 8)
        assert found.shape == (3, 8, 8) and found.dtype == torch.float32
        assert found.min() >= -1 and found.max() <= 1
    assert (pixels(tmp_path / "clear.png", 8) == 1).all()
    shown = pixels(tmp_path / "turned.jpg", 8)
    assert shown[:, 0].mean() > 0.8 and shown[:, -1].mean() < -0.8


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(DataError, match=r"broken\.png"):
        pixels(tmp_path / "broken.png", 8)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "sixteen.png")
    with pytest.raises(DataError, match=r"sixteen\.png: expected 8 bits a channel"):
        pixels(tmp_path / "sixteen.png", 8)


def test_captions_stand_in_a_table_beside_the_pictures_or_in_the_folders_names(tmp_path):
    for layout in ("table", "beside", "classes/a_cat", "classes/dog", "splits/train/x", "splits/test/y"):
        (tmp_path / layout).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / layout / "one.png")
    (tmp_path / "table" / "metadata.jsonl").write_text('{"file_name": "one.png", "caption": "said"}\n')
    (tmp_path / "beside" / "one.txt").write_text("written\n")
    assert captions(tmp_path / "table") == {"train": ["said"]}
    assert captions(tmp_path / "beside") == {"train": ["written"]}
    assert captions(tmp_path / "classes") == {"train": ["a cat", "dog"]}
    assert captions(tmp_path / "splits") == {"train": ["x"], "test": ["y"]}


def captions(folder):
    return {split: [one.caption for one in rows] for split, rows in read_splits(folder).items()}


def test_a_list_says_the_splits_by_a_field_or_by_the_folders_of_its_files(tmp_path):
    for name in ("train/a.png", "Val/b.png", "test/c.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name)
    (tmp_path / "metadata.csv").write_bytes(
        b"\xef\xbb\xbffile_name,text\r\ntrain/a.png,one\r\nVal/b.png,two\r\ntest/c.png,three\r\n"
    )
    assert captions(tmp_path) == {"train": ["one"], "validation": ["two"], "test": ["three"]}
    rows = [("train/a.png", "test", "one"), ("Val/b.png", "", "two\u2028and more")]
    lines = [json.dumps({"file_name": n, "split": s, "text": t}, ensure_ascii=False) for n, s, t in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match="expected a single list"):
        read_splits(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    assert captions(tmp_path) == {"test": ["one"], "train": ["two\u2028and more"]}


@pytest.mark.parametrize("name", ["one.heic", "notes.txt", "more"])
def test_a_file_that_is_neither_a_picture_nor_its_caption_is_named(name, tmp_path):
    for folder in (tmp_path / "beside", tmp_path / "classes" / "cat"):
        folder.mkdir(parents=True)
        Image.new("L", (8, 8)).save(folder / "one.png")
        (folder / name).mkdir() if name == "more" else (folder / name).write_text("x")
    (tmp_path / "beside" / "one.txt").write_bytes(b"\xef\xbb\xbfa cat")
    for layout in ("beside", "classes"):
        with pytest.raises(DataError, match=rf"{name}: expected|one\.png: .*beside it"):
            read_splits(tmp_path / layout)
    stray = tmp_path / "beside" / name
    stray.rmdir() if name == "more" else stray.unlink()
    assert captions(tmp_path / "beside") == {"train": ["a cat"]}


def test_held_out_pictures_alone_are_no_classes(tmp_path):
    (tmp_path / "Test").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "Test" / "one.png")
    (tmp_path / "Test" / "one.txt").write_text("a cat")
    with pytest.raises(DataError, match="found none for the split train"):
        read_splits(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"file_name": "one.png"}', "line 1: expected a caption, text or caption"),
        ('{"file_name": "../one.png", "text": "x"}', "line 1: expected an image in"),
        ('{"file_name": "two.png", "text": "x"}', "line 1: expected an image in"),
        ('{"file_name": "one.png", "text": 7}', "line 1: expected a caption"),
        ('{"file_name": "one.png", "text": "x"}\n' * 2, "line 2: expected each image once"),
        ('{"file_name": "one.png", "text": "x", "split": "trian"}', "line 1: expected a split among"),
        ("nothing", "line 1"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(tmp_path, row, said):
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    (tmp_path / "metadata.jsonl").write_text(row + "\n")
    with pytest.raises(DataError, match=said):
        read_splits(tmp_path)


def test_a_caption_that_is_missing_is_named(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(DataError, match=r"one\.png.*one\.txt"):
        read_splits(tmp_path)


def test_the_cache_is_filled_once_and_goes_on_where_it_was(pipeline, data, tmp_path, monkeypatch):
    first = opened(pipeline, data, tmp_path)
    latents = sorted(next(tmp_path.glob("latents-*")).iterdir())
    assert len(latents) == 24 and len(list(next(tmp_path.glob("texts-*")).iterdir())) == 3  # with the empty caption
    held = {path: path.read_bytes() for path in latents}
    for path in latents[:2]:
        path.unlink()
    asked = []
    written = encoders.write_cache
    monkeypatch.setattr(encoders, "write_cache", lambda path, *rest: (asked.append(path), written(path, *rest)))
    again = opened(pipeline, data, tmp_path)
    assert sorted(asked) == latents[:2]
    assert {path: path.read_bytes() for path in latents} == held
    assert again.digest == first.digest
    assert not list(tmp_path.rglob("*.new"))


def test_a_filling_that_was_stopped_keeps_what_it_had(pipeline, data, tmp_path):
    asked = []

    def torn(path, size):
        if len(asked) == 3:
            raise DataError("stopped here")
        asked.append(path)
        return pixels(path, size)

    rows = read_splits(data)["train"]
    with pytest.raises(DataError, match="stopped here"):
        Encoders(Checkpoint.open(pipeline), tmp_path, CPU, torn).prepare(rows, 28, 1)
    assert len(list(tmp_path.glob("latents-*/*.safetensors"))) == 3
    rest = []
    encoded = Encoders(
        Checkpoint.open(pipeline), tmp_path, CPU, lambda path, size: (rest.append(path), pixels(path, size))[1]
    )
    encoded.prepare(rows, 28, 1)
    assert len(rest) == len(rows) - 3
    other = Encoders(Checkpoint.open(pipeline), tmp_path, CPU, pixels)
    other.prepare(rows[:1], 24, 1)
    assert other.digest != encoded.digest


@pytest.mark.parametrize("t5", [False, True])
def test_captions_that_a_text_encoder_cuts_are_counted(t5, pipeline, data, tmp_path, caplog):
    folder = tiny_pipeline.with_t5(pipeline, tmp_path / "t5") if t5 else pipeline
    rows = read_splits(data)["train"]
    Encoders(Checkpoint.open(folder), tmp_path / "a", CPU, pixels).prepare(rows, 28, 9)
    assert not caplog.records
    long = [replace(rows[0], caption="a one two " * n) for n in (2, 9)]
    Encoders(Checkpoint.open(folder), tmp_path / "b", CPU, pixels).prepare(long, 28, 9)
    said = [record.getMessage() for record in caplog.records]
    # The empty caption of dropped ones is encoded too. CLIP's tokenizer of this pipeline reads five tokens.
    assert said[0] == "2 of 3 captions are longer than 5 tokens, and CLIP reads these alone"
    assert said[1:] == (["1 of 3 captions are longer than 9 tokens, and T5 reads these alone"] if t5 else [])


def test_splits_share_no_picture_and_the_digest_says_what_a_batch_depends_on(pipeline, data, tmp_path):
    task = opened(pipeline, data, tmp_path)
    held = [row.digest for rows in task.rows.values() for row in rows]
    assert len(held) == len(set(held)) == 24
    changed = ({"caption_dropout": 0.0}, {"batch_rows": 3}, {"stratify": False}, {"resolution": 24})
    assert len({task.digest, *(opened(pipeline, data, tmp_path, **one).digest for one in changed)}) == 5


@pytest.mark.parametrize(("most", "rows"), [(None, 24), (5, 5)])
def test_pictures_that_are_only_scored_are_all_test_pictures(pipeline, data, tmp_path, most, rows):
    read = read_splits(data)
    assert read.keys() == {"train"} and len(read["train"]) == 24
    task = opened(pipeline, data, tmp_path, whole=Whole(most))
    assert task.describe()["rows"] == {"test": rows} and account(task).only("test").read("test") == 24
    assert [row.digest for row in task.rows["test"]] == [row.digest for row in read["train"][:most]]
    (tmp_path / "named" / "train").mkdir(parents=True)
    for split in ("train", "test"):
        shutil.copytree(data, tmp_path / "named" / split, dirs_exist_ok=True)
    named = opened(pipeline, tmp_path / "named", tmp_path, whole=Whole(most))
    assert named.describe()["rows"]["test"] == 24  # its splits are named


def test_rows_in_order_are_held_out_across_the_order(pipeline, data, tmp_path):
    config = complete(
        "qzo", kind="diffusion", checkpoint=str(pipeline), task=TaskConfig(name="text-to-image", data=""), steps=1
    )
    model = load(pipeline, device="cpu")
    for stratify, parts in ((True, across), (False, neighbours)):
        task = opened(pipeline, data, tmp_path, stratify=stratify)
        assert measures(config, model, task, Space(trainable(model, "norms"))).parts is parts


def test_a_latent_is_the_vaes_mean_shifted_and_scaled_as_diffusers_does(pipeline, data, tmp_path):
    task = opened(pipeline, data, tmp_path)
    row = task.rows["train"][0]
    vae = library().AutoencoderKL.from_pretrained(pipeline / "vae")
    with torch.no_grad():
        mean = vae.encode(pixels(row.path, 28)[None]).latent_dist.mean[0]
    want = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    assert torch.allclose(task.encoded.latent(row), want, atol=1e-6)


def test_a_file_of_another_model_in_the_cache_is_refused_and_a_cut_one_too(pipeline, data, tmp_path):
    task = opened(pipeline, data, tmp_path)
    row = task.rows["train"][0]
    path = next(tmp_path.glob(f"latents-*/{row.digest}.safetensors"))
    save_file(load_file(path), path, metadata={"model": "another"})
    with pytest.raises(FormatError, match="another"):
        task.encoded.latent(row)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(FormatError, match="expected a complete cache file"):
        task.encoded.latent(row)


@pytest.mark.parametrize("resolution", [30, 2, 56])
def test_a_resolution_that_does_not_fit_is_refused_before_anything_is_encoded(pipeline, data, tmp_path, resolution):
    with pytest.raises(ConfigError, match=r"^resolution: "):
        opened(pipeline, data, tmp_path, resolution=resolution)
    assert not list(tmp_path.iterdir())


def test_a_batch_is_a_function_of_seed_and_step_and_held_out_noise_never_changes(pipeline, data, tmp_path):
    one, other = (opened(pipeline, data, tmp_path, caption_dropout=0.5) for _ in range(2))
    for step in (3, 0):
        a, b = one.batch(step), other.batch(step)
        assert torch.equal(a.noise, b.noise) and torch.equal(a.level, b.level) and torch.equal(a.texts, b.texts)
    assert not torch.equal(one.batch(0).noise, one.batch(1).noise)
    seeded = opened(pipeline, data, tmp_path, seed=1)
    assert not torch.equal(seeded.batch(0).noise, one.batch(0).noise)
    model = load(pipeline)
    score = one.evaluate(model, "test")
    assert score == other.evaluate(model, "test")
    quarters = [score.metrics[f"loss q{n}"] for n in (1, 2, 3, 4)]
    assert score.loss == pytest.approx(sum(quarters) / 4)
    assert one.loss(model, one.batch(2)) == pytest.approx(float(one.loss_tensor(model, one.batch(2))), abs=1e-6)
    answer = one.losses(model, one.batch(2))
    assert answer.mean == one.loss(model, one.batch(2)) == pytest.approx(sum(answer.each) / len(answer.each), rel=1e-6)


def test_dropped_captions_are_the_empty_one(pipeline, data, tmp_path):
    task = opened(pipeline, data, tmp_path, caption_dropout=1.0)
    empty = task.encoded.text("")[0]
    assert all(torch.equal(text, empty) for text in task.batch(0).texts)
    assert not torch.equal(next(task.batches("test")).texts[0], empty)


def test_a_loaded_denoiser_is_diffusers_own(pipeline):
    ours = load(pipeline)
    theirs = library().SD3Transformer2DModel.from_pretrained(pipeline / "transformer").eval()
    torch.manual_seed(0)
    given = (torch.randn(2, 1, 28, 28), torch.randn(2, 6, 64), torch.randn(2, 64), torch.tensor([10.0, 700.0]))
    with torch.inference_mode():
        found, want = (model(*given, return_dict=False)[0] for model in (ours, theirs))
    assert want.abs().max() > 0.01
    assert torch.allclose(found, want, atol=1e-5)


def test_pictures_see_directions_of_their_own_however_a_batch_is_cut(pipeline, data, tmp_path):
    small = quantized(pipeline, "nf4", tmp_path / "nf4")
    model = load(small, device="cpu")
    moving = Space(trainable(model), DOMAINS["signed"], shared=noise_sharing.outputs)
    term = Term(11 << 64, 0.1, group=OUTPUTS)
    task = opened(small, data, tmp_path / "cache")
    batch = task.batch(0)
    plain, by_hand = task.losses(model, batch).each, []
    for row in range(4):
        with moving.displaced(Move((replace(term, row=row),))):  # every picture sees this row's direction
            by_hand.append(task.losses(model, batch).each[row])
    for most in (1, 3, 16):
        with moving.displaced(Move((term,), by_row=True)):
            found = task.losses(model, replace(batch, most=most)).each
        np.testing.assert_allclose(found, by_hand, rtol=1e-4)
    assert np.abs(np.subtract(by_hand, plain)).min() > 1e-3
    assert noise_sharing.why_shared(moving.leaves, task, None) is None
    assert settled_method(recipe("grzo").settings, moving.leaves, task, profile=None)[0].by_row
    found, why = settled_method(recipe("qzo").settings, moving.leaves, task, profile=None)
    assert not found.by_row and why == NOISED


def test_a_pipeline_of_another_class_is_named(pipeline, tmp_path):
    for name in ("model_index.json",):
        index = json.loads((pipeline / name).read_text()) | {"_class_name": "FluxPipeline"}
        (tmp_path / name).write_text(json.dumps(index))
    with pytest.raises(FormatError, match="FluxPipeline"):
        Checkpoint.open(tmp_path)


def test_a_part_of_a_pipeline_that_is_missing_is_named(pipeline, data, tmp_path):
    (tmp_path / "model_index.json").write_text((pipeline / "model_index.json").read_text())
    with pytest.raises(FormatError, match="transformer"):
        Checkpoint.open(tmp_path)
    (tmp_path / "transformer").symlink_to(pipeline / "transformer")
    with pytest.raises(FormatError, match="scheduler"):
        opened(tmp_path, data, tmp_path / "cache")


def test_the_real_size_is_built_without_a_byte():
    model = skeleton(LARGE, torch.bfloat16)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(8.06e9, rel=0.005)
    assert all(parameter.is_meta for parameter in model.parameters())


def rescheduled(pipeline, folder, **settings):
    """A copy of a pipeline with other settings of its scheduler."""
    shutil.copytree(pipeline, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ({"num_train_timesteps": 500}, "1000 num_train_timesteps, found 500"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, "found 'DDIMScheduler'"),
        ({"shift": None}, "expected a positive shift, found None"),
    ],
)
def test_noise_levels_by_another_law_are_refused(pipeline, data, tmp_path, settings, said):
    with pytest.raises(FormatError, match=said):
        opened(rescheduled(pipeline, tmp_path / "pipeline", **settings), data, tmp_path / "cache")


def test_pictures_are_drawn_by_the_pipelines_own_scheduler(pipeline, data, tmp_path):
    """Heun's takes two forwards for all steps but the last; training knows no difference."""
    own = rescheduled(pipeline, tmp_path / "pipeline", _class_name="FlowMatchHeunDiscreteScheduler", shift=3.0)
    task = opened(own, data, tmp_path / "cache", samples=1, sample_steps=3)
    model, calls = load(own, "cpu"), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    assert task.encoded.shift == 3.0 and task.pictures(model) is not None
    assert len(calls) == 5


def test_shards_come_before_a_single_file_as_in_diffusers(tmp_path):
    own = tiny_pipeline.save(tmp_path / "pipeline", shards="100KB")
    shards = sorted((own / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    stale = {name: x * 2 for shard in shards for name, x in load_file(shard).items()}
    save_file(stale, own / "transformer" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    theirs = library().SD3Transformer2DModel.from_pretrained(own / "transformer").state_dict()
    ckpt = Checkpoint.open(own)
    assert all(torch.equal(ckpt.read(name), theirs[name]) for name in ckpt.info) and len(ckpt.info) == len(stale)
