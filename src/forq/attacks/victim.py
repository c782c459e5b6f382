"""Victims: whatever turns a batch of images into scores, checked at every call.

A victim takes uint8 [N, H, W, C], or float32 [N, C, H, W] in 0 … 1 if asked for (``floats``), and returns scores
[N, classes], the higher the likelier; logits and probabilities are alike to a margin.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forq.attacks.criterion import Scores
from forq.errors import RunError
from forq.plugins.networks import Predict


@dataclass(slots=True)
class Victim:
    """A function from a batch to scores, its input form, and how long it may think.

    Attributes:
        predict: the function; what it returns may be an array or a tensor.
        floats: it takes float32 [N, C, H, W] in 0 … 1 instead of uint8 [N, H, W, C].
        timeout_s: seconds one call may take; ``None``: for ever.
        classes: number of scores; learnt from the first call, and held to in every later one.
    """

    predict: Predict
    floats: bool = False
    timeout_s: float | None = None
    classes: int | None = field(default=None, init=False)

    def __call__(self, points: Sequence[NDArray[Any]]) -> Scores:
        """Scores [N, classes] in float64.

        Raises:
            RunError: it raises, takes too long, or returns something else than N rows of finite scores.
        """
        batch = np.stack(points)
        if self.floats:
            batch = np.ascontiguousarray((batch / np.float32(255)).transpose(0, 3, 1, 2), dtype=np.float32)
        given = self._answer(batch)
        detach = getattr(given, "detach", None)
        try:
            scores = np.asarray(given if detach is None else detach().cpu().float().numpy(), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RunError(
                f"the victim returned {type(given).__name__}, expected an array of scores: {error}"
            ) from error
        expected = f"({len(points)}, {'classes' if self.classes is None else self.classes})"
        if scores.ndim != 2 or len(scores) != len(points) or scores.shape[1] < 2:
            raise RunError(f"the victim returned scores of shape {scores.shape}, expected {expected}")
        if self.classes not in (None, scores.shape[1]):
            raise RunError(f"the victim returned scores of shape {scores.shape}, expected {expected} as before")
        if not np.isfinite(scores).all():
            bad = int((~np.isfinite(scores)).any(axis=1).sum())
            raise RunError(f"the victim returned NaN or infinite scores for {bad} of {len(points)} images")
        self.classes = scores.shape[1]
        return scores

    def _answer(self, batch: NDArray[Any]) -> Any:
        if self.timeout_s is None:
            return _guarded(self.predict, batch)
        box: list[Any] = []

        def work() -> None:
            try:
                box.append(_guarded(self.predict, batch))
            except BaseException as error:  # carried to the thread that waits
                box.append(error)

        # A daemon: a victim that hangs must not keep the process alive.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self.timeout_s)
        if not box:
            raise RunError(
                f"the victim did not answer {len(batch)} images within {self.timeout_s:g} s: raise --timeout"
            )
        if isinstance(box[0], BaseException):
            raise box[0]
        return box[0]


def _guarded(predict: Predict, batch: NDArray[Any]) -> Any:
    try:
        return predict(batch)
    except Exception as error:  # whatever the user's code or a runtime raises
        said = str(error).strip().splitlines()
        raise RunError(f"the victim failed: {type(error).__name__}: {said[0] if said else 'nothing said'}") from error
