"""Images and their classes, for a network on images: an int8 ONNX classifier on the pictures of its own camera.

Images come from class sub-folders, from a CSV or from an .npz. They are prepared as the preprocessor_config.json
beside the network says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import ConfigError, DataError
from forq.tasks import Split
from forq.tasks.images.classes import by_value, indices, within
from forq.tasks.images.classification import ImageRow, ImageRows
from forq.tasks.images.files import transparent
from forq.tasks.images.labelled import Labelled, read
from forq.tasks.images.preprocessing import Preprocessing, together
from forq.tasks.images.preprocessor_file import preprocessing
from forq.tasks.rows.order import of_each_class
from forq.tasks.rows.stratified import stratified
from forq.tasks.rows.taken import Whole, sizes, taken

LAW = 2
"""Version of how held-out images are drawn. Law 1 drew others for other settings of the same data."""


def open(
    data: Path,
    graph: GraphImages,
    *,
    seed: int,
    output: str | None = None,
    labels: str | None = None,
    mean: str | float | None = None,
    std: str | float | None = None,
    preprocessor: str | None = None,
    batch_rows: int = 64,
    at_once: int = 64,
    balanced: bool = True,
    train_rows: int | None = None,
    validation_rows: int | None = 500,
    test_rows: int | None = 1000,
    head: tuple[str, ...] = (),
    described: Mapping[str, object] | None = None,
    whole: Whole | None = None,
) -> ImageRows:
    """Read the images and prepare them for a network.

    Args:
        data: see :mod:`forq.tasks.images.labelled`. A split without images of its own takes one in ten training
            images, with every class's share.
        graph: what the network takes and gives.
        seed: seed for drawing validation and test images and for the order of training images.
        output: name of the output with the scores; needed where the network has several.
        labels: the classes in the order of the network's outputs, with commas. By default the names in
            config.json, numbers, or all labels in the order of their names.
        mean, std: of the channels, in place of the preprocessor_config.json's.
        preprocessor: path of another preprocessor_config.json.
        batch_rows: images of a step.
        at_once: most images in a run of the network; 1 where it measures the range of what it rounds.
        balanced: every batch has as many images of each class, up to one image.
        head: names of the classes in the network's own configuration.
        described: the description of a run's task. Its classes are then the classes, whichever of them the
            images have; ``labels`` is not read.
        whole: the images are only scored; see :class:`forq.tasks.rows.taken.Whole`.

    Raises:
        ConfigError: an option does not fit the network, or the network is no classifier.
        DataError: the data cannot be used (file and line).
    """
    for name, value in (("batch_rows", batch_rows), ("at_once", at_once)):
        if value < 1:
            raise ConfigError(f"task.{name}: expected 1 image or more, found {value}")
    scores = graph.scores(output)
    how = preprocessing(graph, preprocessor, mean, std)
    given = read(data)
    if isinstance(own := (described or {}).get("names"), list):
        names, classes, numbered = tuple(own), within(own, given), False
    else:
        names, classes = indices(given, graph.classes(scores), head, labels)
        numbered = labels is None and by_value(given, head)
    channels = graph.channels or (3 if given["train"][0].levels is None else given["train"][0].levels.shape[2])
    if channels not in (1, 3):
        raise ConfigError(f"{graph.path}: expected images of 1 or 3 channels, found {channels}")
    state = hashlib.sha256()
    levels = together(_prepared(given, how, channels, state), sum(map(len, given.values())), graph)
    starts = dict(zip(given, np.cumsum([0, *map(len, given.values())]).tolist(), strict=False))
    # Held-out images are a function of the data and the seed alone: other settings score the same ones.
    by_label = {
        label: place for place, label in enumerate(sorted({row.label for some in given.values() for row in some}))
    }
    known = {split: [by_label[row.label] for row in some] for split, some in given.items()}
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    all_of: dict[Split, list[tuple[Split, int]]] = {
        split: [(split, row) for row in range(len(some))] for split, some in given.items()
    }
    places = None if whole is None else whole.of(all_of)
    if places is None:
        places = stratified(known, seed=seed, digest=state.hexdigest(), limits=limits)
    balanced = balanced and "train" in places
    rows = {
        split: tuple(ImageRow(starts[file] + row, classes[file][row], given[file][row].where) for file, row in found)
        for split, found in places.items()
    }
    for split, some in rows.items():
        if not some:
            raise DataError(f"classify-images: {split} has no images")
    used = (given[file][row] for found in places.values() for file, row in found)
    see_through = sum(row.levels is None and transparent(row.where) for row in used)
    least = graph.probabilities.get(scores)
    settings = {"task": "classify-images", "law": LAW, "batch_rows": batch_rows, "names": names, **how.plain()}
    settings |= {"balanced": balanced} | ({} if least is None else {"probabilities": True})
    description = {"output": scores, "images": [*levels.shape[1:]], "law": LAW, **how.plain()}
    return ImageRows(
        name="classify-images",
        description=description | ({} if least is None else {"probabilities": True}),
        classes=len(names),
        names=names,
        further=({"by_value": True} if numbered else {}) | ({"transparent": see_through} if see_through else {}),
        rows=rows,
        taken=taken(sizes(all_of), sizes(places)),
        seed=seed,
        batch_rows=batch_rows,
        digest=_digest(levels.numpy().data, settings, rows),
        by_class=of_each_class(row.label for row in rows["train"]) if balanced else None,
        levels=levels,
        numbers=partial(how.numbers, graph=graph),
        output=scores,
        outputs=tuple(graph.outputs),
        at_once=1 if graph.apart else min(at_once, graph.rows or at_once),
        least=least,
    )


def example(folder: Path) -> Path:
    """Write 220 grey images of 8×8, dark ones and bright ones."""
    path = folder / "images.npz"
    draw = np.random.default_rng(0)
    labels = np.arange(220) % 2
    images = (labels[:, None, None] * 120 + draw.integers(0, 120, (220, 8, 8))).astype(np.uint8)
    np.savez(path, images=images, labels=labels)
    return path


def _prepared(
    given: Mapping[Split, list[Labelled]], how: Preprocessing, channels: int, state: hashlib._Hash
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """The prepared levels of each image, and its place; ``state`` takes the images as they are read, and labels."""
    for split, some in given.items():
        for row in some:
            picture = row.picture()
            state.update(json.dumps([split, row.label, picture.mode, picture.size]).encode())
            state.update(picture.tobytes())
            yield how.levels(picture.convert("L" if channels == 1 else "RGB")), row.where


def _digest(levels: memoryview, settings: Mapping[str, object], rows: Mapping[Split, tuple[ImageRow, ...]]) -> str:
    """Digest of all that batches depend on: images, settings, and the rows of each split."""
    state = hashlib.sha256(levels)
    places = {split: [row[:2] for row in some] for split, some in rows.items()}
    state.update(json.dumps([settings, places], sort_keys=True).encode())
    return state.hexdigest()
