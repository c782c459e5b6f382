"""The result of an attack: images, success, queries, norms and summary numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forq.attacks.queries import ImageOutcome
from forq.errors import RunError

_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Result:
    """Outcomes of the finished images, in the order of the data.

    Attributes:
        images: all images, [N, H, W, C]: the adversarial image on success, else the original.
        outcomes: one per finished image; fewer than N only if the run was interrupted.
        budget: maximum number of queries per image.
        queries: evaluations spent, unfinished images included.
        checks: evaluations that confirmed a success after PNG.
        calls: calls of the victim.
    """

    images: NDArray[np.uint8]
    outcomes: tuple[ImageOutcome, ...]
    budget: int
    queries: int
    checks: int
    calls: int

    @property
    def success(self) -> NDArray[np.bool_]:
        """Which images have a verified adversarial image; [N]."""
        return self._filled([outcome.success for outcome in self.outcomes], False)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which originals the victim classified correctly; only these were attacked; [N]."""
        return self._filled([outcome.correct for outcome in self.outcomes], False)

    @property
    def queries_per_image(self) -> NDArray[np.int64]:
        """Evaluations spent on each image, the first included; [N]."""
        return self._filled([outcome.queries for outcome in self.outcomes], 0)

    @property
    def linf(self) -> NDArray[np.int64]:
        """Largest change in levels; [N]."""
        return self._filled([outcome.distance.linf for outcome in self.outcomes], 0)

    @property
    def l2(self) -> NDArray[np.float64]:
        """Euclidean norm of the change in levels; [N]."""
        return self._filled([outcome.distance.l2 for outcome in self.outcomes], 0.0)

    @property
    def l0(self) -> NDArray[np.int64]:
        """Number of changed elements; [N]."""
        return self._filled([outcome.distance.l0 for outcome in self.outcomes], 0)

    def curve(self, budgets: Iterable[int] | None = None) -> list[tuple[int, float]]:
        """(queries, success rate within them) among the attacked images; by default at 1, 2, 5, 10, … queries."""
        attacked = [outcome for outcome in self.outcomes if outcome.correct]
        won = sorted(outcome.queries for outcome in attacked if outcome.success)
        budgets = list(budgets) if budgets is not None else steps(self.budget)
        return [(q, float(np.searchsorted(won, q, side="right")) / max(len(attacked), 1)) for q in budgets]

    def summary(self) -> dict[str, Any]:
        """The summary as plain values for JSON; with counts alone if the run was interrupted.

        Misclassified originals and easy images finish first, so rates, queries an image and norms of the images
        finished so far would be biased: they are ``None`` until every image is finished.
        """
        complete = len(self.outcomes) == len(self.images)
        attacked = [outcome for outcome in self.outcomes if outcome.correct]
        won = [outcome for outcome in attacked if outcome.success]
        spent = sorted(outcome.queries for outcome in attacked)
        rate = len(won) / len(attacked) if attacked and complete else None
        return {
            "images": len(self.images),
            "done": len(self.outcomes),
            "correct": len(attacked),
            "clean_accuracy": len(attacked) / len(self.images) if complete else None,
            "success": len(won),
            "success_rate": rate,
            "success_rate_95": interval(len(won), len(attacked)) if complete else None,
            "accuracy_under_attack": (len(attacked) - len(won)) / len(self.images) if complete else None,
            "found_but_lost_by_rounding": sum(outcome.found and not outcome.success for outcome in attacked),
            "queries_mean": float(np.mean(spent)) if spent and complete else None,
            "queries_median": float(np.median(spent)) if spent and complete else None,
            "queries_median_of_success": float(np.median([outcome.queries for outcome in won]))
            if won and complete
            else None,
            "norms_of_success": {
                "linf_max": max(outcome.distance.linf for outcome in won),
                "l2_mean": float(np.mean([outcome.distance.l2 for outcome in won])),
                "l0_mean": float(np.mean([outcome.distance.l0 for outcome in won])),
            }
            if won and complete
            else None,
            "queries": self.queries,
            "checks": self.checks,
            "victim_calls": self.calls,
            "curve": self.curve() if complete else None,
        }

    def _filled(self, values: Sequence[Any], absent: Any) -> NDArray[Any]:
        filled = np.full(len(self.images), absent)
        for outcome, value in zip(self.outcomes, values, strict=True):
            filled[outcome.index] = value
        return filled


class AttackStopped(RunError):
    """An attack stopped early; ``result`` holds the outcomes up to then."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def steps(budget: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to the budget, and the budget."""
    below = [m * 10**e for e in range(len(str(budget))) for m in _STEPS if m * 10**e < budget]
    return [*below, budget]


def interval(won: int, n: int) -> tuple[float, float] | None:
    """95 % confidence interval of the share ``won / n`` (Wilson's score interval)."""
    if not n:
        return None
    z, p = 1.959964, won / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max((middle - half) / (1 + z * z / n), 0.0), min((middle + half) / (1 + z * z / n), 1.0)


def row(outcome: ImageOutcome) -> dict[str, Any]:
    """An outcome as a row of results.jsonl, without the image."""
    body = {name: getattr(outcome, name) for name in ImageOutcome.__slots__ if name not in ("image", "distance")}
    return body | asdict(outcome.distance)
