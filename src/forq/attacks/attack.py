"""``forq.attack``: how many of its own images a model can be made to misclassify, and with how many queries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from forq.attacks import ball as _ball
from forq.attacks import criterion as _criterion
from forq.attacks import images as _images
from forq.attacks.folder import Folder
from forq.attacks.queries import Job, Outcome, Queue, Rules
from forq.attacks.result import AttackStopped, Result
from forq.attacks.task import Method
from forq.attacks.victim import Victim
from forq.errors import ConfigError, DataError, ForqError, RunError
from forq.plugins import registry
from forq.plugins.networks import Predict
from forq.scalars.moves import direction_seed


def method(recipe: str, settings: Mapping[str, Any]) -> Method:
    """A recipe's method with some of its settings changed; texts are read as the setting's type.

    Raises:
        ConfigError: no such recipe or setting, or a value that cannot be.
    """
    made = registry.get("attacks", recipe).Method
    known = tuple(made.__dataclass_fields__)
    for name in settings:
        if name not in known:
            raise ConfigError(
                f"{recipe} has no setting {name!r}{registry.nearest(name, known)}; known: {', '.join(known)}"
            )
    try:
        found: Method = TypeAdapter(made).validate_python(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{recipe}: {'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r}"
        ) from error
    return found


def attack(
    predict: Predict,
    images: Any,
    labels: Any,
    *,
    norm: _ball.Norm = "linf",
    eps: float = 8,
    budget: int = 1000,
    recipe: str = "zoqo",
    settings: Mapping[str, Any] | None = None,
    targeted: bool = False,
    targets: Any = None,
    loss: _criterion.Loss = "margin",
    seed: int = 0,
    batch: int = 64,
    input: Literal["uint8", "float"] = "uint8",
    timeout: float | None = None,
    out: str | Path | None = None,
    victim: Mapping[str, Any] | None = None,
    progress: Callable[[Outcome, int], None] | None = None,
) -> Result:
    """Attack a model through its scores alone, on whole pixel levels.

    Args:
        predict: from a batch, uint8 [N, H, W, C], to scores [N, classes].
        images: uint8 [N, H, W, C] or [N, H, W].
        labels: [N]; images that the victim gets wrong are not attacked.
        norm: ``linf`` or ``l2``.
        eps: radius in levels of 255, also in L2.
        budget: queries of one image, its first one included.
        recipe: ``zoqo``, ``zoqo-paper``, ``zo-signsgd`` or ``square``.
        settings: of the recipe.
        targeted: reach a class drawn for each image, or that of ``targets`` [N].
        loss: ``margin`` or ``cross-entropy``.
        seed: of all noise; an image's result does not depend on the others.
        batch: images scored by one call.
        input: ``float`` gives ``predict`` float32 [N, C, H, W] in 0 … 1 instead.
        timeout: seconds one call may take.
        out: folder for rows, PNG files and summary; a second run with equal settings goes on where the first stopped.
        victim: what identifies the victim, for that comparison.
        progress: called for each image done, with the queries spent so far.

    Raises:
        ConfigError, DataError: something asked for cannot be.
        AttackStopped: the victim failed, or got every image wrong; its ``result`` is what was done until then.
    """
    x, y = _images.check(images, labels)
    _ball.check(norm, eps, x[0].size)
    if budget < 1 or batch < 1:
        raise ConfigError(f"budget and batch must be at least 1, found {budget} and {batch}")
    if loss not in _criterion.LOSSES:
        raise ConfigError(f"--loss: expected {' or '.join(_criterion.LOSSES)}, found {loss!r}")
    if input not in ("uint8", "float"):
        raise ConfigError(f"--input: expected uint8 or float, found {input!r}")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"--timeout: expected more than 0 seconds, found {timeout:g}")
    direction_seed(seed, 0)
    rules = Rules(norm, eps, budget, loss, seed, batch)
    how = method(recipe, settings or {})
    asked = Victim(predict, input == "float", timeout)
    folder = None
    if out is not None:
        fields = {name: getattr(how, name) for name in how.__dataclass_fields__}  # type: ignore[attr-defined]
        said = {
            "recipe": recipe.replace("_", "-"),
            "settings": fields,
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
        folder = Folder(Path(out), said, x)
    jobs = _jobs(x, y, targeted, targets, {one.index for one in folder.done} if folder else set())
    result, trouble = _run(asked, how, rules, x, jobs, folder, progress)
    attacked = sum(one.correct for one in result.outcomes)
    if trouble is None and not attacked:
        trouble = RunError(
            f"the victim gets none of {len(result.outcomes)} images right, so there is nothing to attack: check the "
            "labels, the order of the channels, and whether it wants uint8 or floats in 0 … 1 (--input)"
        )
    if trouble is not None:
        kept = "" if out is None else f"; what was done is in {out}, and the same command goes on there"
        spent = f"{len(result.outcomes)} of {len(x)} images done, {result.queries} queries spent{kept}"
        raise AttackStopped(f"{trouble} ({spent})", result) from trouble
    return result


def _run(
    victim: Victim,
    how: Method,
    rules: Rules,
    x: NDArray[np.uint8],
    jobs: Iterator[Job],
    folder: Folder | None,
    progress: Callable[[Outcome, int], None] | None,
) -> tuple[Result, ForqError | None]:
    """Attack what is left to attack; whatever happens, what is known is written."""
    queue = Queue(
        victim, how, rules, folder.written if folder else lambda index, image: _images.from_png(_images.png(image))
    )
    outcomes = list(folder.done) if folder else []
    trouble: ForqError | None = None

    def result() -> Result:
        done = tuple(sorted(outcomes, key=lambda one: one.index))
        images = x.copy()
        for one in done:
            images[one.index] = one.image
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
        trouble = error
    finally:
        if folder:
            found = result()
            folder.close(found.outcomes, found.summary() | {"stopped": None if trouble is None else str(trouble)})
    return result(), trouble


def _jobs(x: NDArray[np.uint8], y: NDArray[np.int64], targeted: bool, targets: Any, done: set[int]) -> Iterator[Job]:
    """The images still to attack.

    Raises:
        DataError: the targets are not one an image, or one is its image's label.
    """
    aims = None if targets is None else np.asarray(targets)
    if aims is not None:
        if aims.shape != y.shape or aims.dtype.kind not in "iu":
            raise DataError(f"targets: expected {len(y)} whole numbers, found {aims.dtype} {list(aims.shape)}")
        if (same := np.flatnonzero(aims == y)).size:
            raise DataError(f"targets: image {same[0]} is to reach its own label {y[same[0]]}")
    pick = targeted or aims is not None
    return (
        Job(i, x[i], int(y[i]), pick, None if aims is None else int(aims[i])) for i in range(len(x)) if i not in done
    )


def _digest(*arrays: Any) -> str:
    """SHA-256 of arrays, their shapes included."""
    found = hashlib.sha256()
    for one in arrays:
        array = np.asarray(-1 if one is None else one)
        found.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
