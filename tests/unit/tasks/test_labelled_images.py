"""Labelled images from files: none is left out silently, and the same ones are held out whatever the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import convert_to_rgb

from forq.errors import ConfigError, DataError
from forq.runs import fixed_options
from forq.runs.config import TaskConfig
from forq.tasks import account, classify_images
from forq.tasks.images.classes import indices
from forq.tasks.images.labelled import Labelled, read
from tests.unit.tasks.test_classify_images import NAMES, arrays, graph, pixels, usual


def folders(root: Path) -> Path:
    """Four classes of three images."""
    x, _ = pixels(12)
    for place, image in enumerate(x):
        (root / NAMES[place % 4]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / NAMES[place % 4] / f"{place:03}.png")
    return root


def held_out(task: Any) -> list[list[str]]:
    return [[row.where for row in task.rows[split]] for split in ("validation", "test")]


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_rows": 3}, {"balanced": False}, {"mean": 0.5, "std": 0.2}, {"labels": "3,1,0,2"}, {"at_once": 1},
        {"head": ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")},
    ],
)  # fmt: skip
def test_the_same_images_are_held_out_whatever_the_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    path = arrays(tmp_path / "a.npz", 63)  # with a class that gets the odd image
    plain = classify_images.open(path, usual(tmp_path), seed=1)
    other = classify_images.open(path, usual(tmp_path), seed=1, **settings)
    assert held_out(plain) == held_out(other)
    assert held_out(plain) != held_out(classify_images.open(path, usual(tmp_path), seed=2))
    assert (plain.digest == other.digest) == (set(settings) <= {"at_once", "head"})


def test_the_same_images_are_held_out_for_another_network(tmp_path: Path) -> None:
    path = arrays(tmp_path / "a.npz")
    small = graph(["n", 1, 6, 6], {"scores": ["n", 4]}, tmp_path / "small" / "model.onnx")
    (small.folder / "preprocessor_config.json").write_text('{"size": {"height": 6, "width": 6}, "resample": 2, '
                                                           '"do_normalize": false}')  # fmt: skip
    tasks = [classify_images.open(path, given, seed=0) for given in (usual(tmp_path), small)]
    assert held_out(tasks[0]) == held_out(tasks[1])


def test_other_images_or_labels_hold_out_others(tmp_path: Path) -> None:
    (x, y), given = pixels(), usual(tmp_path)
    found = []
    for place, (images, labels) in enumerate(
        ((x, y), (x ^ (np.arange(len(x)) == 0)[:, None, None, None], y), (x, y[::-1]))
    ):
        np.savez(tmp_path / f"{place}.npz", images=images.astype(np.uint8), labels=labels)
        task = classify_images.open(tmp_path / f"{place}.npz", given, seed=0)
        found.append([row.place for split in ("validation", "test") for row in task.rows[split]])
    assert found[0] != found[1] and found[0] != found[2]


def test_a_run_of_an_earlier_law_is_not_scored_on_other_images() -> None:
    config = TaskConfig(name="classify-images", data="x")
    begun = fixed_options.SourceRun(config, 0, {"task": "classify-images"})
    with pytest.raises(ConfigError, match="drawn by law 2, found law 1 of an earlier version"):
        fixed_options.task_of_run(begun, config)
    begun.described["law"] = 2
    assert fixed_options.task_of_run(begun, config) == (config, begun.described)


def test_every_file_of_a_class_is_read_or_refused(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    for name in (".DS_Store", "._001.png", "Thumbs.db", "desktop.ini"):
        (root / "cat" / name).write_bytes(b"litter")
    (root / ".git").mkdir()
    (root / "README.txt").write_text("photos")
    assert len(read(root)["train"]) == 12
    levels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for end in ("tif", "TIFF", "ppm"):
        Image.fromarray(levels).save(root / "cat" / f"a.{end}")
    Image.fromarray(levels[..., 0]).save(root / "cat" / "a.pgm")
    Image.fromarray(levels[..., 0]).save(root / "cat" / "a.gif")
    found = {Path(row.where).name: row for row in read(root)["train"]}
    assert len(found) == 17
    for name in ("a.tif", "a.TIFF", "a.ppm"):
        assert np.array_equal(np.asarray(found[name].picture()), levels)
    for name in ("a.pgm", "a.gif"):
        assert np.array_equal(np.asarray(found[name].picture().convert("L")), levels[..., 0])
    (root / "cat" / "b.heic").write_bytes(b"heic")
    with pytest.raises(DataError, match=r"cat/b\.heic: expected an image .*found '\.heic'; convert"):
        read(root)
    (root / "cat" / "b.heic").rename(root / "cat" / "notes")
    with pytest.raises(DataError, match=r"cat/notes: .*found 'no ending'"):
        read(root)
    (root / "cat" / "notes").unlink()
    (root / "cat" / "more").mkdir()
    with pytest.raises(DataError, match=r"cat/more: expected images in cat, found a sub-folder"):
        read(root)
    (root / "cat" / "more").rmdir()
    Image.fromarray(levels).save(root / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png: expected images in cat and the like, found one beside"):
        read(root)


def test_images_of_several_frames_are_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (0, 99, 200)]
    for end in ("gif", "tif", "png", "webp"):
        frames[0].save(tmp_path / f"a.{end}", save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match=rf"a\.{end}: expected a single image, found \d frames"):
            Labelled(str(tmp_path / f"a.{end}"), "x").picture()
    frames[1].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[2:])
    assert np.asarray(Labelled(str(tmp_path / "a.jpg"), "x").picture()).mean() == pytest.approx(99, abs=2)


def test_levels_of_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    ramp = np.arange(64).reshape(8, 8)
    for name, levels in (
        ("a.png", ramp.astype(np.uint16)),
        ("a.tif", ramp.astype(np.float32)),
        ("b.tif", ramp.astype(np.int32)),
    ):
        Image.fromarray(levels).save(tmp_path / name)
        with pytest.raises(DataError, match=r"expected 8 bits a channel, found mode '[IF].*convert it to 8 bits"):
            Labelled(str(tmp_path / name), "x").picture()


def test_palettes_and_transparency_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    colours = Image.fromarray(draw.integers(0, 256, (9, 7, 4)).astype(np.uint8), "RGBA")
    opaque = colours.copy()
    opaque.putalpha(255)
    palette = colours.convert("RGB").quantize(8)
    palette.save(tmp_path / "see-through.png", transparency=3)
    files = {"clear": colours, "opaque": opaque, "palette": palette, "grey": colours.convert("LA"),
             "bits": colours.convert("1")}  # fmt: skip
    for name, image in files.items():
        image.save(tmp_path / f"{name}.png")
    for name in (*files, "see-through"):
        with Image.open(tmp_path / f"{name}.png") as file:
            want = convert_to_rgb(file, return_numpy=True)
        found = np.asarray(Labelled(str(tmp_path / f"{name}.png"), "x").picture().convert("RGB"))
        assert np.array_equal(found, want), name
    assert np.array_equal(convert_to_rgb(opaque, return_numpy=True), np.asarray(opaque.convert("RGB")))


def test_splits_are_named_in_any_capitals(tmp_path: Path) -> None:
    folders(tmp_path / "a" / "Train")
    folders(tmp_path / "a" / "TEST")
    assert {split: len(rows) for split, rows in read(tmp_path / "a").items()} == {"train": 12, "test": 12}
    folders(tmp_path / "b" / "test")
    with pytest.raises(DataError, match="expected training images, found none in test"):
        read(tmp_path / "b")
    (tmp_path / "a" / "list.csv").write_text("file,label\nTrain/cat/000.png,cat\nTEST/dog/001.png,dog\n")
    assert {split: len(rows) for split, rows in read(tmp_path / "a" / "list.csv").items()} == {"train": 1, "test": 1}
    root = folders(tmp_path / "c")
    (root / "list.csv").write_text("file,label,split\ncat/000.png,cat,Train\ndog/001.png,dog,VAL\nfox/002.png,fox,\n")
    assert {split: len(rows) for split, rows in read(root / "list.csv").items()} == {"train": 2, "validation": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\ncat/000.png,cat,more\n", "line 2: expected 2 fields as the header has, found 3"),
        ("file,label\ncat/000.png\n", "line 2: expected 2 fields as the header has, found 1"),
        ('file,label\ncat/000.png,"cat\n', "line 2: unexpected end of data"),
        ("file,label,label\ncat/000.png,cat,dog\n", "two columns are called 'label'"),
        ("file,label\ncat/000.png,cat\ncat/../cat/000.png,dog\n", "line 3: expected each image once, .*line 2 too"),
        ("file,label\ncat/000.png,  \n", "line 2: expected the columns file and label, a label in each"),
        ("file,label,split\ncat/000.png,cat,trian\n", "line 2: expected a split among"),
        ("name,label\ncat/000.png,cat\n", "expected the field file, found name, label"),
        ("file,class\ncat/000.png,cat\n", "line 2: expected the columns file and label"),
        ("file,label\n", "a header and no rows"),
        ("", "line 1: expected a header"),
    ],
)
def test_a_table_of_images_is_read_strictly(text: str, message: str, tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    (root / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read(root / "list.csv")


def test_a_byte_order_mark_belongs_to_no_column(tmp_path: Path) -> None:
    root = folders(tmp_path / "photos")
    (root / "labels.csv").write_bytes(b"\xef\xbb\xbffile,label\r\ncat/000.png,cat\r\ndog/001.png,dog\r\n")
    assert [row.label for row in read(root)["train"]] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10.0", "2.0", "2.0"], ("2.0", "10.0")),
        (["1", "-1"], ("-1", "1")),
        (["1e3", "20", "+.5"], ("+.5", "20", "1e3")),
        (["nan", "1"], ("1", "nan")),
        (["10", "9", "cat"], ("9", "10", "cat")),
    ],
)
def test_numbers_are_ordered_by_value(labels: list[str], names: tuple[str, ...]) -> None:
    rows = {"train": [Labelled(str(place), label) for place, label in enumerate(labels)]}
    found, places = indices(rows, len(names), (), None)  # type: ignore[arg-type]
    assert found == names and [found[place] for place in places["train"]] == labels


@pytest.mark.parametrize("labels", [["1", "1.0", "2"], ["0", "1", "01"], ["-1", "-1.0"]])
def test_two_spellings_of_a_number_are_refused(labels: list[str]) -> None:
    rows = {"train": [Labelled(str(place), label) for place, label in enumerate(labels)]}
    with pytest.raises(DataError, match="expected a single spelling of each number"):
        indices(rows, len(labels), (), None)  # type: ignore[arg-type]


def listed_by_camera(root: Path) -> dict[str, str]:
    """Images in folders of cameras, which are no classes: the label of each file."""
    x, _ = pixels(8)
    labels = {}
    for place, image in enumerate(x):
        name = f"camera {place // 4}/{place:03}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name)
        labels[name] = ("dog", "cat")[place % 2]
    return labels


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_labels_of_an_imagefolder_are_those_of_its_list(name: str, tmp_path: Path) -> None:
    labels = listed_by_camera(tmp_path)
    rows = [{"file_name": file, "label": label} for file, label in labels.items()]
    table = ["file_name,label", *(",".join(row.values()) for row in rows)]
    (tmp_path / name).write_text("\n".join(table if name.endswith("csv") else map(json.dumps, rows)) + "\n")
    ours = {Path(row.where).relative_to(tmp_path).as_posix(): row.label for row in read(tmp_path)["train"]}
    assert ours == labels


def test_each_split_of_an_imagefolder_may_have_a_list(tmp_path: Path) -> None:
    for split in ("train", "test"):
        labels = listed_by_camera(tmp_path / split)
        (tmp_path / split / "metadata.csv").write_text(
            "".join(["file_name,label\n", *(f"{file},{label}\n" for file, label in labels.items())])
        )
    found = read(tmp_path)
    assert {split: [row.label for row in rows] for split, rows in found.items()} == {
        "train": ["dog", "cat"] * 4, "test": ["dog", "cat"] * 4,
    }  # fmt: skip


def test_a_list_without_labels_beside_class_folders_is_refused(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,text\ncat/000.png,a cat\n")
    with pytest.raises(DataError, match=r"metadata\.csv, line 2: expected the columns file_name and label"):
        read(tmp_path)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"a single list of its images, .*found metadata\.csv and metadata\.parquet"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("count", "digits", "options", "noted"),
    [
        (12, 1, {}, True),
        (10, 1, {}, False),
        (12, 2, {}, False),
        (12, 1, {"labels": ",".join(sorted(map(str, range(12))))}, False),
        (12, 1, {"head": tuple(map(str, range(12)))}, False),
        (12, 1, {"head": tuple(f"LABEL_{n}" for n in range(12))}, True),
    ],
)
def test_numbered_folders_that_imagefolder_orders_as_texts_are_noted(count, digits, options, noted, tmp_path) -> None:
    x, _ = pixels(6 * count)
    for place, image in enumerate(x):
        folder = tmp_path / "data" / f"{place % count:0{digits}}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{place:03}.png")
    own = sorted(path.name for path in (tmp_path / "data").iterdir())  # find_classes of torchvision.datasets
    given = graph(["n", 3, 8, 8], {"scores": ["n", count]}, tmp_path / "net" / "model.onnx")
    (given.folder / "preprocessor_config.json").write_text('{"do_resize": false, "do_normalize": false}')
    task = classify_images.open(tmp_path / "data", given, seed=0, **options)
    assert ("ImageFolder has them by text" in account(task).line) == noted
    if not options:
        assert ([int(name) for name in own] != [int(name) for name in task.names]) == noted
