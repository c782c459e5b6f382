"""What an attack minimises, and when it has won. Ties count against the attack."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Loss = Literal["margin", "cross-entropy"]
LOSSES: tuple[Loss, ...] = ("margin", "cross-entropy")


def margins(scores: Scores, classes: NDArray[np.int64]) -> Scores:
    """Score of a class minus the best other one, [N]: positive exactly where the class wins without a tie."""
    rows = np.arange(len(scores))
    own = scores[rows, classes]
    others = scores.copy()
    others[rows, classes] = -np.inf
    found: Scores = own - others.max(axis=1)
    return found


def losses(scores: Scores, classes: NDArray[np.int64], targeted: NDArray[np.bool_], loss: Loss) -> Scores:
    """What is minimised, [N].

    The margin of Carlini and Wagner (2017), s_y − max_{j≠y} s_j, or the log-probability log softmax(s)_y, which is the
    cross-entropy with its sign turned; both with the opposite sign where ``classes`` are targets to be reached.
    """
    if loss == "margin":
        found = margins(scores, classes)
    else:
        top = scores.max(axis=1, keepdims=True)
        whole = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
        found = scores[np.arange(len(scores)), classes] - whole
    return np.where(targeted, -found, found)


def won(scores: Scores, classes: NDArray[np.int64], targeted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether another class than the label wins, or the target does; strictly, [N]."""
    margin: NDArray[Any] = margins(scores, classes)
    return np.where(targeted, margin > 0, margin < 0)
