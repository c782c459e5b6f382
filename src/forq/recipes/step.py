"""The settings of a step: its numbers, and what each rule's own file adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, create_model, model_serializer

from forq.scalars.chain import Frozen, registered

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StepSettings(Frozen):
    """The step and its numbers, which a calibration can measure or which hold for all rules.

    Attributes:
        lr: learning rate η; ``auto`` is ``newton`` · N / tr(H), with the trace that the calibration measures.
        clip: bound C of each directional derivative; ``auto`` is five times the root mean square of the slopes.
        decay: how the step shrinks over the run: not, ``linear`` to zero, or ``late``: from half of the run on.
        step: ``slope``: −η·ĝ. ``newton``: a Gauss–Newton step, which sets its own length; ``lr`` and ``clip`` have no
            part in it. ``sign``: −η·sgn(ĝ), elementwise. ``vote``: like ``sign``, with each slope replaced by its
            sign; η then counts cells, and with ``auto`` each direction moves by ±z, whatever ε is.
        edge: what a probe does with integers at the end of their range. ``cut``: the probe is cut off there. ``skip``:
            the integer stays.
        newton: length of a step, as a share of the length that lowers the loss most; for a learning rate of ``auto``,
            and for steps ``newton``.
        checks: most batches on which the calibration checks a learning rate of ``auto`` in a run that is too short to
            rehearse its step. Journals without this setting were calibrated without checks.
    """

    lr: Positive | Literal["auto"]
    clip: Positive | Literal["auto", "off"] = "off"
    decay: Literal["none", "linear", "late"] = "none"
    step: str = "slope"
    edge: Literal["cut", "skip"] = "cut"
    newton: Annotated[float, Field(gt=0, le=1)] = 0.5
    checks: Annotated[int, Field(ge=0, le=64)] = 0

    @model_serializer(mode="wrap")
    def _in_order(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        values: dict[str, object] = dump(self)
        return {name: values[name] for name in dict.fromkeys([*_ORDER, *values]) if name in values}


_ORDER = ("lr", "clip", "decay", "step", "shape", "audit", "feedback", "feedback_decay", "edge", "newton", "checks")
"""The order of the settings in the headers of journals; later settings follow."""

if TYPE_CHECKING:

    class RuleSettings(StepSettings):
        """What is done with the estimate: :class:`StepSettings`, and the settings of each rule's own file.

        The defaults change nothing, so a recipe names what it uses. :func:`forq.scalars.chain.own` gives the settings
        of one file, with their types.
        """

        def __init__(self, **values: object) -> None: ...

else:
    RuleSettings = create_model(
        "RuleSettings",
        __base__=(StepSettings, *(dict.fromkeys(registration.settings for registration in registered()))),
        __module__=__name__,
        step=(Literal[tuple(step for registration in registered() for step in registration.steps)], "slope"),
    )
