"""The victim: a function from a batch of images to scores, checked at every call.

A victim takes uint8 [N, H, W, C], or with ``floats`` float32 [N, C, H, W] in 0 … 1. It returns
scores [N, classes]: logits or probabilities, higher means more likely.
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
    """A function from a batch to scores, its input type and its time limit.

    Attributes:
        predict: the function; it may return an array or a tensor.
        floats: whether it takes float32 [N, C, H, W] in 0 … 1 instead of uint8 [N, H, W, C].
        timeout_s: maximum seconds per call; ``None``: no limit.
        classes: number of classes, set by the first call; later calls must return as many.
    """

    predict: Predict
    floats: bool = False
    timeout_s: float | None = None
    classes: int | None = field(default=None, init=False)

    def __call__(self, points: Sequence[NDArray[Any]]) -> Scores:
        """Scores [N, classes] in float64.

        Raises:
            RunError: the function raised, took too long, or did not return N rows of finite scores.
        """
        batch = np.stack(points)
        if self.floats:
            batch = np.ascontiguousarray((batch / np.float32(255)).transpose(0, 3, 1, 2), dtype=np.float32)
        output = self._call(batch)
        detach = getattr(output, "detach", None)
        try:
            scores = np.asarray(output if detach is None else detach().cpu().float().numpy(), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RunError(
                f"the victim returned {type(output).__name__}, expected an array of scores: {error}"
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

    def _call(self, batch: NDArray[Any]) -> Any:
        if self.timeout_s is None:
            return _guarded(self.predict, batch)
        results: list[Any] = []

        def work() -> None:
            try:
                results.append(_guarded(self.predict, batch))
            except BaseException as error:  # raised again in the waiting thread
                results.append(error)

        # A daemon thread: a victim that hangs must not keep the process alive.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self.timeout_s)
        if not results:
            raise RunError(
                f"the victim did not answer {len(batch)} images within {self.timeout_s:g} s; raise --timeout"
            )
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]


def _guarded(predict: Predict, batch: NDArray[Any]) -> Any:
    try:
        return predict(batch)
    except Exception as error:  # user code or a runtime may raise anything
        lines = str(error).strip().splitlines()
        raise RunError(f"the victim failed: {type(error).__name__}: {lines[0] if lines else 'no message'}") from error
