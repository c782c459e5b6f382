"""A setback: a validation score that is clearly worse than the one before the first step.

Every score of a run is of the same rows, so most of what makes scores scatter is common to both and cancels. What is
clear is therefore told by simple bounds: a loss, or another number without a scale of its own, that is worse by more
than ``FRACTION`` of its size; a share of rows, such as an accuracy, that is worse by more than ``ERRORS`` standard
errors of the difference of two shares.
"""

from __future__ import annotations

import math

from forq.tasks import SHARES, Score

FRACTION = 0.02
ERRORS = 2.0
PERSISTENT = 3
"""So many setbacks one after the other are a run that does not come back by itself."""


def clearly_worse(score: Score, start: Score) -> bool:
    """Whether a score is clearly worse than that of the start; a loss that is not a number is."""
    if not math.isfinite(score.value):
        return math.isfinite(start.value)
    if not math.isfinite(start.value):
        return False
    fall = start.value - score.value if start.higher_is_better else score.value - start.value
    if start.main in SHARES:
        share = min(max(0.5 * (start.value + score.value), 0.0), 1.0)
        return fall > ERRORS * math.sqrt(2.0 * share * (1.0 - share) / max(1, start.rows))
    return fall > FRACTION * abs(start.value)
