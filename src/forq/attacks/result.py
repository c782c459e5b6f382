"""What an attack returns: images, success, queries and norms, and the numbers people quote."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forq.attacks.queries import Outcome
from forq.errors import RunError

_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Result:
    """Outcomes of the images that were done, in the order of the data.

    Attributes:
        images: all images, [N, H, W, C]: adversarial where there is success, else the originals.
        outcomes: one for every image that was done; fewer than N only where a run was cut short.
        budget: queries each image was allowed.
        queries: evaluations spent, also on images that are not done.
        checks: evaluations that only confirmed a success after PNG.
        calls: calls of the victim.
    """

    images: NDArray[np.uint8]
    outcomes: tuple[Outcome, ...]
    budget: int
    queries: int
    checks: int
    calls: int

    @property
    def success(self) -> NDArray[np.bool_]:
        """Which images are adversarial, verified; [N]."""
        return self._filled([one.success for one in self.outcomes], False)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which originals the victim classified rightly, so which were attacked; [N]."""
        return self._filled([one.correct for one in self.outcomes], False)

    @property
    def queries_per_image(self) -> NDArray[np.int64]:
        """Evaluations spent on each image, the first included; [N]."""
        return self._filled([one.queries for one in self.outcomes], 0)

    @property
    def linf(self) -> NDArray[np.int64]:
        """Largest change in levels; [N]."""
        return self._filled([one.distance.linf for one in self.outcomes], 0)

    @property
    def l2(self) -> NDArray[np.float64]:
        """Euclidean norm of the change in levels; [N]."""
        return self._filled([one.distance.l2 for one in self.outcomes], 0.0)

    @property
    def l0(self) -> NDArray[np.int64]:
        """Elements that changed; [N]."""
        return self._filled([one.distance.l0 for one in self.outcomes], 0)

    def curve(self, budgets: Iterable[int] | None = None) -> list[tuple[int, float]]:
        """(queries, share of the rightly classified images that fell within them); by default at 1, 2, 5, 10, …"""
        attacked = [one for one in self.outcomes if one.correct]
        won = sorted(one.queries for one in attacked if one.success)
        at = list(budgets) if budgets is not None else steps(self.budget)
        return [(q, float(np.searchsorted(won, q, side="right")) / max(len(attacked), 1)) for q in at]

    def summary(self) -> dict[str, Any]:
        """The numbers, as JSON can hold them; no rates where the run was cut short.

        Misclassified originals and easy images are done first, so rates over the images done so far would be biased.
        """
        whole = len(self.outcomes) == len(self.images)
        attacked = [one for one in self.outcomes if one.correct]
        won = [one for one in attacked if one.success]
        spent = sorted(one.queries for one in attacked)
        rate = len(won) / len(attacked) if attacked and whole else None
        return {
            "images": len(self.images),
            "done": len(self.outcomes),
            "correct": len(attacked),
            "clean_accuracy": len(attacked) / len(self.images) if whole else None,
            "success": len(won),
            "success_rate": rate,
            "success_rate_95": interval(len(won), len(attacked)) if whole else None,
            "accuracy_under_attack": (len(attacked) - len(won)) / len(self.images) if whole else None,
            "found_but_lost_by_rounding": sum(one.found and not one.success for one in attacked),
            "queries_mean": float(np.mean(spent)) if spent else None,
            "queries_median": float(np.median(spent)) if spent else None,
            "queries_median_of_success": float(np.median([one.queries for one in won])) if won else None,
            "norms_of_success": {
                "linf_max": max(one.distance.linf for one in won),
                "l2_mean": float(np.mean([one.distance.l2 for one in won])),
                "l0_mean": float(np.mean([one.distance.l0 for one in won])),
            }
            if won
            else None,
            "queries": self.queries,
            "checks": self.checks,
            "victim_calls": self.calls,
            "curve": self.curve() if whole else None,
        }

    def _filled(self, values: Sequence[Any], absent: Any) -> NDArray[Any]:
        found = np.full(len(self.images), absent)
        for one, value in zip(self.outcomes, values, strict=True):
            found[one.index] = value
        return found


class AttackStopped(RunError):
    """An attack could not go on; ``result`` holds what was done until then."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def steps(budget: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to the budget, and the budget."""
    found = [m * 10**e for e in range(len(str(budget))) for m in _STEPS if m * 10**e < budget]
    return [*found, budget]


def interval(won: int, of: int) -> tuple[float, float] | None:
    """95 % interval of a share (Wilson's score interval)."""
    if not of:
        return None
    z, p = 1.959964, won / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max((middle - half) / (1 + z * z / of), 0.0), min((middle + half) / (1 + z * z / of), 1.0)


def row(outcome: Outcome) -> dict[str, Any]:
    """An outcome without its image: a line of results.jsonl."""
    body = {name: getattr(outcome, name) for name in Outcome.__slots__ if name not in ("image", "distance")}
    return body | asdict(outcome.distance)
