"""QZO for a loop of one's own, in torch.optim's closure convention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forq import engine
from forq.core import Method, State
from forq.methods import plan
from forq.methods.settings import settings
from forq.oracles.local import Local
from forq.recipes import recipe
from forq.spaces import Space

# A loop of one's own does not say how long it is: it is calibrated as a run of this many steps.
_LIKE_STEPS = 1000


class QZO:
    """Forward-only steps on a space; the closure is called without grad, several times a step.

    Args:
        space: what moves, from :func:`forq.space`.
        lr, eps, clip, directions: as in ``forq ls recipes``; what is left out, the first step calibrates or the
            recipe says.
        seed: of the noise; the same seed and the same losses give the same bits.
        name: which recipe's settings fill the gaps.

    Example:
        >>> space = forq.space(model, move="scales")                 # doctest: +SKIP
        >>> optimizer = forq.QZO(space)                              # doctest: +SKIP
        >>> for batch in batches:                                    # doctest: +SKIP
        ...     loss = optimizer.step(lambda: loss_of(model, batch))
    """

    def __init__(
        self,
        space: Space,
        *,
        lr: float | None = None,
        eps: float | None = None,
        clip: float | None = None,
        directions: int | None = None,
        seed: int = 0,
        name: str = "qzo",
    ) -> None:
        tree = recipe(name).settings.model_dump()
        given: dict[str, dict[str, Any]] = {
            "estimator": {"eps": eps, "directions": directions},
            "rule": {"lr": lr, "clip": clip, "decay": "none"},
        }
        for part, values in given.items():
            tree[part].update({key: value for key, value in values.items() if value is not None})
        if tree["move"] != "all-float":  # which moves as one
            tree["move"] = ",".join(space.groups)
        self.space = space
        self.settings = settings(tree)
        self._seed = seed
        self._method: Method | None = None
        self._states: tuple[State, ...] = ()
        self._number = 0

    def step(self, closure: Callable[[], float]) -> float:
        """Probe, measure and move once; returns the loss at the point before the move.

        Args:
            closure: the loss of *one* batch under the weights now shown, a float; it must not change
                between the calls of one step.

        Raises:
            forq.core.ConfigError: a setting cannot be.
        """
        oracle = Local(self.space, lambda number: None, lambda batch: closure())
        if self._method is None:
            calibration = engine.calibrate(
                oracle, plan(self.settings, seed=self._seed, steps=_LIKE_STEPS, room=self.space.room)
            )
            try:
                while True:
                    next(calibration)
            except StopIteration as end:
                self._method, self._number = end.value
            assert self._method is not None
            self._states = self._method.init()
        line, self._states = engine.step(self._number, self.space, oracle, self._method, self._states)
        self._number += 1
        return line.notes["loss"]
