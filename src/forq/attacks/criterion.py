"""The loss an attack minimises, and when an attack has won. Ties count against the attack."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Loss = Literal["margin", "cross-entropy"]
LOSSES: tuple[Loss, ...] = ("margin", "cross-entropy")


def margins(scores: Scores, classes: NDArray[np.int64]) -> Scores:
    """Score of a class minus the best other score, [N]: positive where the class wins without a tie."""
    rows = np.arange(len(scores))
    own = scores[rows, classes]
    others = scores.copy()
    others[rows, classes] = -np.inf
    margin: Scores = own - others.max(axis=1)
    return margin


def losses(scores: Scores, classes: NDArray[np.int64], targeted: NDArray[np.bool_], loss: Loss) -> Scores:
    """The losses to minimise, [N].

    ``margin`` is s_y − max_{j≠y} s_j (Carlini and Wagner, 2017). ``cross-entropy`` is the
    log-probability log softmax(s)_y, the negative cross-entropy. Where ``classes`` are targets to
    reach, the sign is flipped.
    """
    if loss == "margin":
        values = margins(scores, classes)
    else:
        top = scores.max(axis=1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
        values = scores[np.arange(len(scores)), classes] - log_sum
    return np.where(targeted, -values, values)


def won(scores: Scores, classes: NDArray[np.int64], targeted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the attack has won, [N]: another class beats the label, or the target beats all others."""
    margin = margins(scores, classes)
    return np.where(targeted, margin > 0, margin < 0)
