"""A setback: a validation score that is clearly worse than the score before the first step.

All scores of a run use the same rows, so most of their scatter cancels, and simple bounds suffice.
A loss, or another number without a fixed scale, is clearly worse if it is worse by more than
``FRACTION`` of its size. A share of rows, such as an accuracy, is clearly worse if it is worse by
more than ``ERRORS`` standard errors of the difference of two shares.
"""

from __future__ import annotations

import math

from forq.tasks import SHARES, Score

FRACTION = 0.02
ERRORS = 2.0
PERSISTENT = 3
"""Number of setbacks in a row after which a run is not expected to recover."""


def clearly_worse(score: Score, start: Score) -> bool:
    """Whether a score is clearly worse than the start's; a loss that is not finite is worse than a finite loss."""
    if not math.isfinite(score.value):
        return math.isfinite(start.value)
    if not math.isfinite(start.value):
        return False
    fall = start.value - score.value if start.higher_is_better else score.value - start.value
    if start.main in SHARES:
        share = min(max(0.5 * (start.value + score.value), 0.0), 1.0)
        return fall > ERRORS * math.sqrt(2.0 * share * (1.0 - share) / max(1, start.rows))
    return fall > FRACTION * abs(start.value)
