"""QZO for a loop of one's own, in torch.optim's closure convention."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from forq.coordinates.space import Space
from forq.recipes import recipe
from forq.recipes.plan import plan
from forq.recipes.settings import settings
from forq.runs import engine
from forq.runs.journal import Line
from forq.runs.oracles.local import Local
from forq.scalars.protocols import Method, State

# A loop of one's own does not say how long it is: it is calibrated as a run of this many steps.
_LIKE_STEPS = 1000


class QZO:
    """Forward-only steps on a space; the closure is called without grad, several times a step.

    What is left to the calibration is measured by the first calls of :meth:`step`, about twenty with the default
    settings, one measurement a call. They move nothing: batches have to differ from call to call for the calibration to
    see how far they disagree.

    Args:
        space: what moves, from :func:`forq.space`.
        lr, eps, clip, directions: as in ``forq ls recipes``; what is left out is calibrated, or the recipe says it.
        seed: of the noise; the same seed and the same losses give the same bits.
        name: which recipe's settings fill the gaps.

    Attributes:
        found: what the calibration measured and chose, by name; ``None`` until it is done.

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
        self.found: Mapping[str, float] | None = None
        self._seed = seed
        self._closure: Callable[[], float] | None = None
        self._oracle = Local(space, lambda number: None, self._loss)
        self._calibration: Generator[Line, None, tuple[Method, int]] | None = None
        self._method: Method | None = None
        self._states: tuple[State, ...] = ()
        self._number = 0

    def step(self, closure: Callable[[], float]) -> float:
        """Probe and measure once, then move, unless the measurement is the calibration's.

        Args:
            closure: the loss of *one* batch under the weights now shown, a float; it must not change
                between the calls of one step.

        Returns:
            The loss at the point before the move.

        Raises:
            forq.errors.ConfigError: a setting cannot be.
            forq.errors.RunError: the losses are not finite, or no displacement changes them.
        """
        self._closure = closure
        if self._method is None:
            line = self._calibrated()
            if line is not None:
                return line.losses[0]  # every measurement of a calibration begins at the point itself
        assert self._method is not None
        line, self._states = engine.step(self._number, self.space, self._oracle, self._method, self._states)
        self._number += 1
        return line.notes["loss"]

    def _calibrated(self) -> Line | None:
        """One measurement of the calibration; None once there is none left, and the method is known."""
        if self._calibration is None:
            chosen = plan(self.settings, seed=self._seed, steps=_LIKE_STEPS, room=self.space.room)
            self._calibration = engine.calibrate(self._oracle, chosen)
        try:
            return next(self._calibration)
        except StopIteration as end:
            self._method, self._number = end.value
        except BaseException:
            self._calibration = None  # a generator that raised is over; the next call begins anew
            raise
        assert self._method is not None
        self._states, self.found = self._method.init(), self._method.found
        return None

    def _loss(self, batch: None) -> float:
        assert self._closure is not None
        return self._closure()
