"""Images with classes: how they are read and prepared, what is refused, and a run from the command line's side."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from transformers.image_utils import load_image

import forq
from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx import graph as graphs
from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import ConfigError, DataError, FormatError
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from forq.runs.replay import verify
from forq.tasks import account, classify_images
from forq.tasks.images.preprocessing import Preprocessing
from tests import edge_net

NAMES = ("cat", "dog", "fox", "owl")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edge_net.quantized(tmp_path_factory.mktemp("net"), "qdq")


def graph(shape: list[Any], outputs: dict[str, list[Any]], path: Path, kind: int = TensorProto.FLOAT) -> GraphImages:
    nodes = [helper.make_node("Identity", ["images"], [next(iter(outputs))])] if kind == TensorProto.FLOAT else []
    made = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True, parents=True)
    onnx.save(helper.make_model(made), str(path))
    return GraphImages.of(graphs.read(path), path.parent)


def usual(folder: Path) -> GraphImages:
    return graph(["n", 3, 8, 8], {"scores": ["n", 4]}, folder / "net" / "model.onnx")


def pixels(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    return (edge_net.images(count).transpose(0, 2, 3, 1) * 255).astype(np.uint8), np.arange(count) % 4


def arrays(path: Path, count: int = 60) -> Path:
    x, y = pixels(count)
    np.savez(path, images=x, labels=y)
    return path


def test_all_layouts_give_the_same_images(tmp_path: Path) -> None:
    x, y = pixels()
    np.savez(tmp_path / "a.npz", images=x, labels=np.array(NAMES)[y])
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label"])
        for place, (image, label) in enumerate(zip(x, y, strict=True)):
            folder = tmp_path / "folders" / NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{place:03}.png")
            writer.writerow([f"folders/{NAMES[label]}/{place:03}.png", NAMES[label]])
    opened = [
        classify_images.open(path, usual(tmp_path), seed=0)
        for path in (tmp_path / "a.npz", tmp_path / "list.csv", tmp_path / "folders")
    ]
    assert opened[0].names == NAMES and {task.names for task in opened} == {NAMES}
    assert opened[0].digest == opened[1].digest  # the same order; folders come class by class
    for task in opened:
        assert {split: len(rows) for split, rows in task.rows.items()} == {"train": 48, "validation": 6, "test": 6}
        places = [row.place for rows in task.rows.values() for row in rows]
        assert sorted(places) == list(range(60))
        for rows in task.rows.values():
            for row in rows:
                image = next(i for i in range(60) if np.array_equal(task.levels[row.place].numpy(), x[i]))
                assert row.label == y[image]


def test_batches_are_balanced_and_a_function_of_data_seed_and_step(tmp_path: Path) -> None:
    path = arrays(tmp_path / "a.npz")
    one, other = (classify_images.open(path, usual(tmp_path), seed=3, batch_rows=8) for _ in range(2))
    for step in (5, 0, 900):
        assert torch.equal(one.batch(step).levels, other.batch(step).levels)
        assert torch.bincount(one.batch(step).labels).tolist() == [2, 2, 2, 2]
    assert not torch.equal(one.batch(0).levels, one.batch(1).levels)
    assert one.digest != classify_images.open(path, usual(tmp_path), seed=3, batch_rows=8, mean=0.5).digest


def test_preprocessing_is_what_the_file_says(tmp_path: Path) -> None:
    given = usual(tmp_path)
    draw = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=draw, labels=np.arange(40) % 4)
    settings = {
        "do_resize": True, "size": {"shortest_edge": 9}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 8, "width": 8}, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3],
    }  # fmt: skip
    (given.folder / "preprocessor_config.json").write_text(json.dumps(settings))
    task = classify_images.open(tmp_path / "a.npz", given, seed=0)
    row = task.rows["train"][0]
    place = row.place
    wide = Image.fromarray(draw[place]).resize((9, int(12 * 9 / 10)), Image.Resampling.BICUBIC)
    left, top = (wide.width - 8) // 2, (wide.height - 8) // 2
    want = np.asarray(wide.crop((left, top, left + 8, top + 8)), np.float64) / 255
    want = (want - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
    found = task.numbers(task.pack([row]).levels)
    assert found.shape == (1, 3, 8, 8) and found.dtype == torch.float32
    assert np.abs(found[0].permute(1, 2, 0).numpy() - want).max() < 1e-6
    own = classify_images.open(tmp_path / "a.npz", given, seed=0, mean="0.1,0.2,0.3", std=2)
    raw = own.levels[place].numpy() / 255
    assert np.allclose(own.numbers(own.levels[place : place + 1])[0, 2], (raw[..., 2] - 0.3) / 2, atol=1e-6)


def test_a_graph_of_levels_gets_levels_in_its_own_order(tmp_path: Path) -> None:
    last = graph(["n", 8, 8, 3], {"scores": ["n", 4]}, tmp_path / "a" / "m.onnx", TensorProto.UINT8)
    first = graph(["n", 3, 8, 8], {"scores": ["n", 4]}, tmp_path / "b" / "m.onnx", TensorProto.UINT8)
    floats_last = graph(["n", 8, 8, 3], {"scores": ["n", 4]}, tmp_path / "c" / "m.onnx")
    assert (last.channels_first, first.channels_first, floats_last.channels_first) == (False, True, False)
    assert [(g.channels, g.height, g.width) for g in (last, first, floats_last)] == [(3, 8, 8)] * 3
    path = arrays(tmp_path / "a.npz")
    for given, shape in ((last, (2, 8, 8, 3)), (first, (2, 3, 8, 8))):
        task = classify_images.open(path, given, seed=0)
        x = task.numbers(task.levels[:2])
        assert x.dtype == torch.uint8 and tuple(x.shape) == shape
    with pytest.raises(ConfigError, match=r"task\.mean"):
        classify_images.open(path, last, seed=0, mean=0.5)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"mask": ["n", 21, 8, 8]}, "segmentation is not supported"),
        ({"boxes": ["n", 100, 85]}, "detection is not supported"),
        ({"scores": ["n", 4], "features": ["n", 16]}, "name one: --set task.output=NAME"),
    ],
)
def test_other_outputs_are_refused_by_name(outputs: dict[str, list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        classify_images.open(arrays(tmp_path / "a.npz"), graph(["n", 3, 8, 8], outputs, tmp_path / "m.onnx"), seed=0)


def test_one_of_several_outputs_can_be_named(tmp_path: Path) -> None:
    given = graph(["n", 3, 8, 8], {"features": ["n", 16], "scores": ["n", 4]}, tmp_path / "m.onnx")
    assert classify_images.open(arrays(tmp_path / "a.npz"), given, seed=0, output="scores").output == "scores"
    with pytest.raises(ConfigError, match="expected an output among features, scores, found 'score'"):
        given.scores("score")


def test_transparent_images_are_counted_since_their_readers_differ(tmp_path: Path) -> None:
    x, y = pixels()
    for place, (image, label) in enumerate(zip(x, y, strict=True)):
        (tmp_path / "data" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        levels = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])  # opaque, as screenshots are
        if place < 2:
            levels[:2, :2] = (0, 0, 0, 0)
        Image.fromarray(levels).save(tmp_path / "data" / NAMES[label] / f"{place:03}.png")
    task = classify_images.open(tmp_path / "data", usual(tmp_path), seed=0)
    (warning,) = account(task).warnings
    assert warning.startswith("2 images have transparent parts, which lie on white here. torchvision, timm and")
    (place,) = (row.place for rows in task.rows.values() for row in rows if Path(row.where).name == "000.png")
    assert (task.levels[place, 0, 0] == 255).all()
    seen = np.array(load_image(str(tmp_path / "data" / "cat" / "000.png")))  # that of the pipelines
    assert (seen[0, 0] == 0).all()


def test_graphs_of_other_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="four axes"):
        graph(["n", 3, 8], {"scores": ["n", 4]}, tmp_path / "m.onnx")


def test_bad_data_is_refused_with_its_place(tmp_path: Path) -> None:
    given = usual(tmp_path)
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"broken\.png: expected an image that Pillow can read"):
        classify_images.open(tmp_path / "images", given, seed=0, labels="cat,dog,fox,owl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a sub-folder for each class"):
        classify_images.open(tmp_path / "empty", given, seed=0)
    (tmp_path / "list.csv").write_text("file,label\ngone.png,cat\n")
    with pytest.raises(DataError, match=r"list\.csv, line 2: expected an image"):
        classify_images.open(tmp_path / "list.csv", given, seed=0)
    (tmp_path / "list.csv").write_text("file,label\n../../etc/passwd,cat\n")
    with pytest.raises(DataError, match="line 2"):
        classify_images.open(tmp_path / "list.csv", given, seed=0)
    x, y = pixels()
    np.savez(tmp_path / "floats.npz", images=x / 255, labels=y)
    with pytest.raises(DataError, match="expected uint8 levels"):
        classify_images.open(tmp_path / "floats.npz", given, seed=0)
    np.savez(tmp_path / "more.npz", images=x, labels=y + 1)
    with pytest.raises(DataError, match="expected a class among 0, 1, 2, 3, found '4'"):
        classify_images.open(tmp_path / "more.npz", given, seed=0)
    np.savez(tmp_path / "few.npz", images=x, labels=np.array(["cat", "dog"])[y % 2])
    with pytest.raises(DataError, match="labels of 4 classes, found 2"):
        classify_images.open(tmp_path / "few.npz", given, seed=0)


def test_fields_of_a_preprocessor_that_are_not_read_are_refused(tmp_path: Path) -> None:
    given, path = usual(tmp_path), arrays(tmp_path / "a.npz")
    plain = classify_images.open(path, given, seed=0)
    file = given.folder / "preprocessor_config.json"
    file.write_text(json.dumps({"do_flip_channel_order": True, "do_pad": False, "do_normalize": False}))
    assert torch.equal(classify_images.open(path, given, seed=0).levels, plain.levels.flip(3))
    file.write_text(json.dumps({"crop_pct": 0.875, "do_pad": True, "image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(ConfigError, match=r"expected fields that forq reads, found .crop_pct, do_pad"):
        classify_images.open(path, given, seed=0)


def test_the_longer_side_is_cut_to_whole_pixels() -> None:
    assert Preprocessing(shortest=256).levels(Image.new("RGB", (640, 427))).shape == (256, 383, 3)


def test_names_of_the_network_are_matched_whatever_their_capitals(tmp_path: Path) -> None:
    x, y = pixels()
    given, path = usual(tmp_path), tmp_path / "a.npz"
    np.savez(path, images=x, labels=np.array(NAMES)[y])
    task = classify_images.open(path, given, seed=0, head=("DOG", "CAT", "Owl", "fox"))
    assert task.names == ("DOG", "CAT", "Owl", "fox")
    for row in task.rows["train"]:
        assert row.label == (1, 0, 3, 2)[y[row.place]]
    with pytest.raises(DataError, match=r"own classes, wolf, cat, owl, fox, found cat, dog, fox, owl; .*task\.labels"):
        classify_images.open(path, given, seed=0, head=("wolf", "cat", "owl", "fox"))
    assert classify_images.open(path, given, seed=0, head=tuple(f"LABEL_{n}" for n in range(4))).names == NAMES


def test_a_limit_on_held_out_folders_keeps_every_class(tmp_path: Path) -> None:
    x, y = pixels()
    order = np.argsort(y, kind="stable")  # folders are read class by class
    np.savez(tmp_path / "a.npz", train_images=x, train_labels=y, test_images=x[order], test_labels=y[order])
    task = classify_images.open(tmp_path / "a.npz", usual(tmp_path), seed=0, test_rows=8)
    assert np.bincount([row.label for row in task.rows["test"]]).tolist() == [2, 2, 2, 2]


def test_two_sources_of_one_split_are_refused(tmp_path: Path) -> None:
    given, (x, y) = usual(tmp_path), pixels()
    np.savez(tmp_path / "two.npz", images=x, labels=y, train_images=x, train_labels=y)
    with pytest.raises(DataError, match="a single array of train images, found train_images too"):
        classify_images.open(tmp_path / "two.npz", given, seed=0)
    for split in ("train", "val", "dev"):
        (tmp_path / "folders" / split / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="a single folder of validation images, found two"):
        classify_images.open(tmp_path / "folders", given, seed=0)


def test_an_array_is_read_only_if_its_header_fits_its_bytes_and_others_are_not_read(tmp_path: Path) -> None:
    given, (x, y) = usual(tmp_path), pixels()
    np.savez(tmp_path / "a.npz", images=x, labels=y, other=np.array([{}]))
    assert classify_images.open(tmp_path / "a.npz", given, seed=0).levels.shape == (60, 8, 8, 3)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 45,)})
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as file:
        file.writestr("images.npy", header.getvalue())
        file.writestr("labels.npy", header.getvalue())
    with pytest.raises(DataError, match=r"images\.npy: expected a plain array .*found uint8 \[35184372088832\]"):
        classify_images.open(tmp_path / "lies.npz", given, seed=0)


def test_each_task_gets_the_model_it_is_for(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be tuned on classify-images"):
        open_task(TaskConfig(name="text", data=str(tmp_path)), Checkpoint.open(file), 0)
    path = arrays(tmp_path / "a.npz")
    with pytest.raises(ConfigError, match="images have no tokens"):
        open_task(TaskConfig(name="classify_images", data=str(path), tokens_per_probe=9), Checkpoint.open(file), 0)


@pytest.mark.parametrize(
    ("recipe", "kinds"), [("qzo-shared", "scales"), ("qzo-slopes", "activations"), ("zoqo", "codes")]
)
def test_a_run_is_scored_by_its_file_in_a_plain_session_and_replays(
    recipe: str, kinds: str, file: Path, tmp_path: Path
) -> None:
    path = arrays(tmp_path / "a.npz", 80)
    settings = {"task": {"batch_rows": 8}}
    run = forq.tune(
        file, "classify-images", str(path), recipe=recipe, move=kinds, steps=3, out=tmp_path / "run", settings=settings
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["served"]["loss"] == pytest.approx(result["validation"]["after"]["loss"], rel=1e-5)
    assert run.model.training_session == "fused"
    verdict = verify(tmp_path / "run", base=file)
    assert verdict.rebuilt and verdict.checkpoint
    x = edge_net.images(8)
    saved = tmp_path / "run" / "checkpoint" / file.name
    assert np.array_equal(forq.load(saved, device="cpu")(torch.from_numpy(x)).numpy(), edge_net.run(saved, x))


def reward(prompt: str, text: str, row: Any) -> float:
    """The margin of the right class, which needs the outputs themselves."""
    scores = row["outputs"]["scores"]
    assert scores == row["scores"] and text == row_names(row)
    return float(scores[row["label"]] - max(scores))


def row_names(row: Any) -> str:
    return str(int(np.argmax(row["scores"])))


def test_a_reward_gets_the_outputs_of_the_graph(file: Path, tmp_path: Path) -> None:
    path = arrays(tmp_path / "a.npz")
    run = forq.tune(
        file, "classify-images", str(path), steps=1, out=tmp_path / "run", settings={"task": {"batch_rows": 8}},
        reward=f"{__name__}:reward",
    )  # fmt: skip
    assert run.config.recipe == "qzo-slopes" and run.first is not None and "reward" in run.first.score.metrics


def test_a_graph_that_measures_ranges_computes_each_image_apart(tmp_path: Path) -> None:
    dynamic = edge_net.quantized(tmp_path, "dynamic")
    ckpt = Checkpoint.open(dynamic)
    task: Any = open_task(TaskConfig(name="classify_images", data=str(arrays(tmp_path / "a.npz"))), ckpt, 0)
    model = forq.load(dynamic, device="cpu")
    batch = task.pack(task.rows["train"][:5])
    alone = [edge_net.run(dynamic, x[None].numpy())[0] for x in task.numbers(batch.levels)]
    assert np.array_equal(task.logits(model, batch).numpy(), np.stack(alone))
