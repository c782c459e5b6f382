"""``forq.ZeroOrder``: forward-only steps in your own loop, with torch.optim's closure convention."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from typing import Any, SupportsFloat

from torch import Tensor

from forq.coordinates.space import Space
from forq.errors import ConfigError, ForqError
from forq.models.blocks import ALL
from forq.plugins import registry
from forq.recipes import recipe as recipe_of
from forq.recipes.plan import plan
from forq.recipes.settings import Settings, settings
from forq.runs import engine
from forq.runs.journal import Line, decode, encode
from forq.runs.oracles.local import Local
from forq.runs.oracles.tape import Tape
from forq.scalars.protocols import Method, State

_LIKE_STEPS = 1000
"""The length of a user's loop is unknown, so it is calibrated as a run of this many steps."""

_VERSION = 1


class ZeroOrder:
    """Forward-only steps on a space; a step calls the closure several times, without gradients.

    The first calls of :meth:`step` calibrate the settings that are left out, with a measurement per
    call; with the default settings these are about twenty calls. They move nothing. Use a different
    batch in each call, so that the calibration can measure how much batches disagree.

    Args:
        space: the coordinates that move, from :func:`forq.space`.
        recipe: the recipe whose settings are the defaults; ``forq ls recipes`` lists them.
        lr: learning rate; calibrated by default, unless the recipe sets it.
        eps: probe radius; calibrated by default, unless the recipe sets it.
        clip: bound on the slope.
        directions: number of directions per step.
        seed: seed of the noise; the same seed and the same losses give the same bits.

    Attributes:
        settings: the resolved settings of the method.
        found: the values that the calibration measured and chose, by name; ``None`` until it is
            done.

    Raises:
        ConfigError: a setting is invalid.

    Example:
        >>> space = forq.space(model, move="scales")                 # doctest: +SKIP
        >>> optimizer = forq.ZeroOrder(space)                        # doctest: +SKIP
        >>> for batch in batches:                                    # doctest: +SKIP
        ...     loss = optimizer.step(lambda: loss_of(model, batch))
    """

    def __init__(
        self,
        space: Space,
        recipe: str = "qzo-slopes",
        *,
        lr: float | None = None,
        eps: float | None = None,
        clip: float | None = None,
        directions: int | None = None,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.settings = _settings(space, recipe, {"lr": lr, "clip": clip}, {"eps": eps, "directions": directions})
        self.found: Mapping[str, float] | None = None
        self._seed = seed
        self._closure: Callable[[], float] | None = None
        self._oracle = Local(space, lambda number: None, self._loss)
        self._calibration: Generator[Line, None, tuple[Method, int]] | None = None
        self._measured: list[Line] = []
        self._method: Method | None = None
        self._states: tuple[State, ...] = ()
        self._number = 0
        self._bad = 0

    def step(self, closure: Callable[[], float]) -> float:
        """Probe, measure and move; a step of the calibration only measures.

        Args:
            closure: returns the loss of *one* batch under the current weights, as a float; the
                batch must not change within a step.

        Returns:
            The loss at the point before the move. A step without a finite loss moves nothing and returns NaN or
            infinity.

        Raises:
            forq.errors.ConfigError: the closure does not return a number.
            forq.errors.RunError: ten steps in a row gave no finite loss, or a calibration found no displacement that
                changes the loss.
        """
        self._closure = closure
        if self._method is None:
            line = self._calibrate()
            if line is not None:
                return line.losses[0].mean  # every measurement of a calibration begins at the undisplaced point
        assert self._method is not None
        taken = engine.step(self._number, self.space, self._oracle, self._method, self._states)
        self._states = taken.states
        self._number += 1
        self._bad = self._bad + 1 if taken.bad else 0
        if self._bad >= engine.MAX_BAD:
            raise engine.no_finite_loss(self._bad, self._number - 1)
        return taken.estimate.loss

    def state_dict(self) -> dict[str, object]:
        """All state that a later process needs to continue: settings, measurements, rule states and masters.

        It holds plain values and tensors, for ``torch.save`` and ``torch.load(…,
        weights_only=True)``. The masters are copies.
        """
        return {
            "version": _VERSION,
            "seed": self._seed,
            "settings": self.settings.model_dump(mode="json"),
            "calibration": [encode(line) for line in self._measured],
            "number": self._number,
            "rules": [dict(state) for state in self._states],
            "masters": {name: master.detach().cpu().clone() for name, master in self.space.masters().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; the masters are restored too.

        Raises:
            ConfigError: the state has another version or other settings.
            JournalError: the state has other leaves.
        """
        if state.get("version") != _VERSION:
            raise ConfigError(f"state_dict: expected version {_VERSION}, found {state.get('version')!r}")
        saved = settings(state["settings"])
        if saved != self.settings.model_copy(update={"decisions": saved.decisions}):
            raise ConfigError(
                "state_dict: expected the settings it was saved with, found others; make the optimizer with the same "
                "recipe, lr, eps, clip and directions"
            )
        self.settings = saved  # an older forq's state goes on by the decisions it was begun with
        masters: Mapping[str, Tensor] = state["masters"]
        self.space.restore(masters)
        self._seed = int(state["seed"])
        self._measured = [decode(body) for body in state["calibration"]]
        self._method = self._calibration = self.found = None
        self._number, self._states = 0, ()
        if state["number"]:  # the calibration was done; replaying its measurements gives the same method
            self._closure = None
            while self._calibrate() is not None:
                pass
            self._number, self._states = int(state["number"]), tuple(dict(rule) for rule in state["rules"])

    def _calibrate(self) -> Line | None:
        """The next measurement of the calibration; None when it is done and the method is known."""
        while True:
            line = self._next_measurement()
            if line is None or line.step >= len(self._measured):
                break
        if line is not None:
            self._measured.append(line)
        return line

    def _next_measurement(self) -> Line | None:
        if self._calibration is None:
            chosen = plan(self.settings, seed=self._seed, steps=_LIKE_STEPS, half_range=self.space.half_range)
            self._calibration = engine.calibrate(Tape(tuple(self._measured), then=self._oracle), chosen)
        try:
            return next(self._calibration)
        except StopIteration as end:
            self._method, self._number = end.value
        except BaseException as error:
            self._calibration = None  # a generator that raised has ended; the next call replays the measurements
            if isinstance(error, ForqError):
                self._measured.clear()  # the measurements themselves are bad
            raise
        assert self._method is not None
        self._states, self.found = self._method.init(), self._method.notes
        return None

    def _loss(self, batch: None) -> float:
        assert self._closure is not None
        loss: object = self._closure()
        if not isinstance(loss, SupportsFloat):
            raise ConfigError(f"closure: expected the loss as a float, found {type(loss).__name__}")
        shape = tuple(getattr(loss, "shape", ()))
        if math.prod(shape) != 1:
            raise ConfigError(
                f"closure: expected the loss as one number, found {type(loss).__name__} of shape {shape}; return the "
                "mean"
            )
        return float(loss)


class QZO(ZeroOrder):
    """:class:`ZeroOrder` under the name of its default recipe."""


def _settings(
    space: Space, recipe: str, rule: Mapping[str, float | None], estimator: Mapping[str, float | None]
) -> Settings:
    tree = recipe_of(recipe).settings.model_dump()
    given: dict[str, Mapping[str, object]] = {"estimator": estimator, "rule": {**rule, "decay": "none"}}
    for part, values in given.items():
        tree[part].update({key: value for key, value in values.items() if value is not None})
    if space.unit is not None:  # ε, η and the clip are measured in the space's own unit
        tree["unit"] = space.unit
    if tree["move"] != "all-float":  # all-float has no groups to choose from
        tree["move"] = ",".join(space.groups)
    shared = registry.get("estimators", tree["estimator"]["name"]).make.shared_form
    if shared is not None:  # a closure's loss has no rows; grzo says so itself
        tree["estimator"]["name"], tree["unit"] = shared, space.unit or "relative"
    tree["blocks"] = ALL  # the space is what moves
    if tree["rule"]["damping"] == "auto":  # a closure has no task
        tree["rule"]["damping"] = "confirmed"
    return settings(tree)
