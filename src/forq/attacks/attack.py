"""``forq.attack``: how many of the given images a model can be made to misclassify, and at what cost."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter, ValidationError

from forq.attacks import ball as _ball
from forq.attacks import criterion as _criterion
from forq.attacks import images as _images
from forq.attacks.folder import Folder
from forq.attacks.queries import ImageOutcome, Job, Queue, Rules
from forq.attacks.result import AttackStopped, Result
from forq.attacks.task import Method
from forq.attacks.victim import Victim
from forq.errors import ConfigError, DataError, ForqError, RunError
from forq.plugins import registry
from forq.plugins.networks import Predict
from forq.scalars.moves import direction_seed

log = logging.getLogger("forq")


def method(recipe: str, settings: Mapping[str, object]) -> Method:
    """The method of a recipe with the given settings; strings are converted to the setting's type.

    Raises:
        ConfigError: unknown recipe or setting, or an invalid value.
    """
    method_class = registry.get("attacks", recipe).Method
    known = tuple(method_class.__dataclass_fields__)
    for name in settings:
        if name not in known:
            raise ConfigError(
                f"{recipe} has no setting {name!r}{registry.nearest(name, known)}; known: {', '.join(known)}"
            )
    try:
        validated: Method = TypeAdapter(method_class).validate_python(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{recipe}: {'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r}"
        ) from error
    return validated


def attack(
    predict: Predict,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: _ball.Norm = "linf",
    eps: float = 8,
    budget: int = 1000,
    recipe: str = "zoqo",
    settings: Mapping[str, object] | None = None,
    targeted: bool = False,
    targets: ArrayLike | None = None,
    loss: _criterion.Loss = "margin",
    seed: int = 0,
    batch: int = 64,
    input: Literal["uint8", "float"] = "uint8",
    timeout: float | None = None,
    out: str | Path | None = None,
    victim: Mapping[str, object] | None = None,
    progress: Callable[[ImageOutcome, int], None] | None = None,
) -> Result:
    """Attack a model with its scores alone, on whole pixel levels.

    Args:
        predict: the victim: maps a batch, uint8 [N, H, W, C], to scores [N, classes].
        images: uint8 [N, H, W, C] or [N, H, W].
        labels: correct classes [N]. Images that the victim already misclassifies are not attacked.
        norm: ``linf`` or ``l2``.
        eps: radius of the ball in pixel levels (0 … 255), for both norms.
        budget: maximum number of queries per image, the query of the original included.
        recipe: ``zoqo``, ``zoqo-paper``, ``zo-signsgd`` or ``square``.
        settings: settings of the recipe.
        targeted: reach a given class: the one in ``targets`` [N], otherwise one drawn per image.
        loss: ``margin`` or ``cross-entropy``.
        seed: seed of all noise. The result of an image does not depend on the other images.
        batch: number of images scored by one call.
        input: with ``float``, ``predict`` gets float32 [N, C, H, W] in 0 … 1 instead.
        timeout: maximum seconds per call.
        out: output folder for rows, PNG files and summary. A second run with the same settings
            continues an interrupted one.
        victim: values that identify the victim when settings are compared.
        progress: called after each image, with its outcome and the queries spent so far.

    Raises:
        ConfigError, DataError: an argument is invalid.
        AttackStopped: the victim failed, or misclassified every image; ``result`` holds the
            outcomes up to then.
    """
    x, y = _images.check(images, labels)
    _ball.check(norm, eps, x[0].size)
    for name, value in (("budget", budget), ("batch", batch)):
        if value < 1:
            raise ConfigError(f"{name}: expected at least 1, found {value}")
    if loss not in _criterion.LOSSES:
        raise ConfigError(f"--loss: expected {' or '.join(_criterion.LOSSES)}, found {loss!r}")
    if input not in ("uint8", "float"):
        raise ConfigError(f"--input: expected uint8 or float, found {input!r}")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"--timeout: expected more than 0 seconds, found {timeout:g}")
    direction_seed(seed, 0)
    rules = Rules(norm, eps, budget, loss, seed, batch)
    search_method = method(recipe, settings or {})
    checked_victim = Victim(predict, input == "float", timeout)
    folder = None
    if out is not None:
        fields = search_method.__dataclass_fields__  # type: ignore[attr-defined]
        run_settings = {
            "recipe": recipe.replace("_", "-"),
            "settings": {name: getattr(search_method, name) for name in fields},
            "norm": norm,
            "eps": eps,
            "budget": budget,
            "loss": loss,
            "seed": seed,
            "input": input,
            "targeted": targeted or targets is not None,
            "data": _digest(x, y, targets),
            "victim": dict(victim or {}),
        }
        folder = Folder(Path(out), run_settings, x)
    jobs = _jobs(x, y, targeted, targets, {outcome.index for outcome in folder.done} if folder else set())
    result, failure = _run(checked_victim, search_method, rules, x, jobs, folder, progress)
    attacked = sum(outcome.correct for outcome in result.outcomes)
    if failure is None and not attacked:
        failure = RunError(
            f"the victim gets none of {len(result.outcomes)} images right, so there is nothing to attack; check the "
            "labels, the order of the channels, and whether it expects uint8 or floats in 0 … 1 (--input)"
        )
    if failure is not None:
        done = len(result.outcomes)
        spent = f"{done} of {len(x)} images done, {result.queries} queries spent"
        if out is not None and done < len(x):
            spent += "; once the victim works, the same command goes on"
        if out is not None and 0 < done < len(x):  # easy images finish first
            spent += (
                f"; the results so far are in {out}. Until all images are done, summary.json has counts, but no rates, "
                "queries an image or norms"
            )
        raise AttackStopped(f"{failure} ({spent})", result) from failure
    if budget > 1 and all(outcome.queries == 1 for outcome in result.outcomes if outcome.correct):
        log.warning(
            "no image was attacked: the first step of %s takes more than the %d queries that are left after the "
            "original's; give a larger --budget, or fewer queries a step where the method has a setting for it",
            recipe,
            budget - 1,
        )
    return result


def _run(
    victim: Victim,
    search_method: Method,
    rules: Rules,
    x: NDArray[np.uint8],
    jobs: Iterator[Job],
    folder: Folder | None,
    progress: Callable[[ImageOutcome, int], None] | None,
) -> tuple[Result, ForqError | None]:
    """Attack the remaining images. The folder is completed even if the victim fails."""

    def in_memory(index: int, image: _ball.Image) -> _ball.Image:
        return _images.from_png(_images.png(image))

    queue = Queue(victim, search_method, rules, folder.written if folder else in_memory)
    outcomes = list(folder.done) if folder else []
    failure: ForqError | None = None

    def result() -> Result:
        done = tuple(sorted(outcomes, key=lambda outcome: outcome.index))
        images = x.copy()
        for outcome in done:
            images[outcome.index] = outcome.image
        spent = [queue.queries, queue.checks, queue.calls]
        if folder:
            spent = [a + b for a, b in zip(spent, folder.spent, strict=True)]
        return Result(images, done, rules.budget, *spent)

    try:
        for outcome in queue.run(jobs):
            outcomes.append(outcome)
            if folder:
                folder.add(outcome)
            if progress:
                progress(outcome, queue.queries)
    except ForqError as error:
        failure = error
    finally:
        if folder:
            final = result()
            folder.close(final.outcomes, final.summary() | {"stopped": None if failure is None else str(failure)})
    return result(), failure


def _jobs(
    x: NDArray[np.uint8], y: NDArray[np.int64], targeted: bool, targets: ArrayLike | None, done: set[int]
) -> Iterator[Job]:
    """The images still to attack.

    Raises:
        DataError: the number of targets is wrong, or a target equals the image's label.
    """
    classes = None if targets is None else np.asarray(targets)
    if classes is not None:
        if classes.shape != y.shape or classes.dtype.kind not in "iu":
            raise DataError(f"targets: expected {len(y)} whole numbers, found {classes.dtype} {list(classes.shape)}")
        if (same := np.flatnonzero(classes == y)).size:
            raise DataError(
                f"targets: expected another class than the label, found image {same[0]} with its own label "
                f"{y[same[0]]} as target"
            )
    targeted = targeted or classes is not None
    return (
        Job(i, x[i], int(y[i]), targeted, None if classes is None else int(classes[i]))
        for i in range(len(x))
        if i not in done
    )


def _digest(*arrays: ArrayLike | None) -> str:
    """SHA-256 of arrays, their shapes included."""
    digest = hashlib.sha256()
    for value in arrays:
        array = np.asarray(-1 if value is None else value)
        digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
