"""Images and their classes, for a network on images: an int8 ONNX classifier on the pictures of its own camera.

Images come from class sub-folders, from a CSV or from an .npz. They are prepared as the preprocessor_config.json
beside the network says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import ConfigError, DataError
from forq.tasks import Split
from forq.tasks.kinds.image_classes import within
from forq.tasks.kinds.image_rows import ImageRow, ImageRows
from forq.tasks.kinds.labelled_images import indices, read
from forq.tasks.kinds.preprocessing import preprocessing, together
from forq.tasks.rows.order import of_each_class
from forq.tasks.rows.stratified import stratified


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
) -> ImageRows:
    """Read the images and prepare them for a network.

    Args:
        data: see :mod:`forq.tasks.kinds.labelled_images`. A split without images of its own takes one in ten training
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
        names, classes = tuple(own), within(own, given)
    else:
        names, classes = indices(given, graph.classes(scores), head, labels)
    channels = graph.channels or (3 if given["train"][0].levels is None else given["train"][0].levels.shape[2])
    if channels not in (1, 3):
        raise ConfigError(f"{graph.path}: expected images of 1 or 3 channels, found {channels}")
    where = {split: [row.where for row in rows] for split, rows in given.items()}
    images = ((how.levels(row.picture(channels)), row.where) for row in chain(*given.values()))
    levels = together(images, sum(map(len, given.values())), graph)
    starts = dict(zip(given, np.cumsum([0, *map(len, given.values())]).tolist(), strict=False))
    settings = {"task": "classify-images", "law": 1, "batch_rows": batch_rows, "names": names, **how.plain()}
    digest = _digest(levels.numpy().data, settings, classes, balanced=balanced)
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    places = stratified(classes, seed=seed, digest=digest, limits=limits)
    rows = {
        split: tuple(ImageRow(starts[file] + row, classes[file][row], where[file][row]) for file, row in found)
        for split, found in places.items()
    }
    for split, some in rows.items():
        if not some:
            raise DataError(f"classify-images: {split} has no images")
    return ImageRows(
        name="classify-images",
        description={"output": scores, "images": [*levels.shape[1:]], **how.plain()},
        classes=len(names),
        names=names,
        rows=rows,
        seed=seed,
        batch_rows=batch_rows,
        digest=hashlib.sha256(f"{digest} {[row[:2] for some in rows.values() for row in some]}".encode()).hexdigest(),
        by_class=of_each_class(row.label for row in rows["train"]) if balanced else None,
        levels=levels,
        numbers=partial(how.numbers, graph=graph),
        output=scores,
        outputs=tuple(graph.outputs),
        at_once=1 if graph.apart else min(at_once, graph.rows or at_once),
    )


def example(folder: Path) -> Path:
    """Write 220 grey images of 8×8, dark ones and bright ones."""
    path = folder / "images.npz"
    draw = np.random.default_rng(0)
    labels = np.arange(220) % 2
    images = (labels[:, None, None] * 120 + draw.integers(0, 120, (220, 8, 8))).astype(np.uint8)
    np.savez(path, images=images, labels=labels)
    return path


def _digest(
    levels: memoryview, settings: Mapping[str, object], classes: Mapping[Split, list[int]], *, balanced: bool
) -> str:
    state = hashlib.sha256(levels)
    state.update(json.dumps([settings, classes, balanced], sort_keys=True).encode())
    return state.hexdigest()
