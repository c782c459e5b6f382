"""The settings of a method, checked: what it probes, what it does with an estimate, and what a group has of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from forq.coordinates.domain import DOMAINS, Domain, Unit, usual_unit
from forq.coordinates.leaf import INTEGERS, Leaf
from forq.errors import ConfigError
from forq.noise.law import law, sized
from forq.plugins import registry
from forq.recipes.groups import ProbedGroup
from forq.recipes.probe import EstimatorSettings, one_or_more
from forq.recipes.refused import refusal
from forq.recipes.step import Positive, RuleSettings
from forq.scalars.chain import Choices, Frozen, registered, standardises
from forq.scalars.protocols import Estimator

if TYPE_CHECKING:
    from torch import Tensor


class GroupSettings(Frozen):
    """What one kind of leaves has of its own; ``None`` is as the recipe says.

    Attributes:
        eps: probe radius, as ``estimator.eps``.
        lr: learning rate, as ``rule.lr``.
        clip: bound of a slope, as ``rule.clip``.
        newton: share of a step, as ``rule.newton``.
        noise: laws of z, as ``estimator.noise``.
        unit: what eps and lr are measured in, as ``unit``; by default it depends on the kind. Zero points and codes are
            integers: by default their ``eps`` is one cell, and their ``noise`` moves a fiftieth of them at a time.
    """

    eps: Positive | Literal["auto"] | None = None
    lr: Positive | Literal["auto"] | None = None
    clip: Positive | Literal["auto", "off"] | None = None
    newton: Annotated[float, Field(gt=0, le=1)] | None = None
    noise: tuple[str, ...] | None = None
    unit: Unit | None = None

    _one_or_more = field_validator("noise", mode="before")(one_or_more)


class LoraSettings(Frozen):
    """The adapters of ``--move lora``, see :func:`forq.models.adapters.lora.add_lora`.

    Attributes:
        rank: rank of an adapter (``--rank``).
        alpha: an adapter's output is scaled by alpha / rank (``--alpha``).
        targets: layers with an adapter (``--targets``): ``all-linear``, ``qv``, or ends of names.
        bits: bits of the adapters' integer grid (``--bits``); without it they are float32.
        alone: the scales of layers that carry an adapter do not move (QZO + LoRA).
    """

    rank: Annotated[int, Field(ge=1, le=1 << 16)] = 8
    alpha: Positive = 16.0
    targets: tuple[str, ...] = ("all-linear",)
    bits: Annotated[int, Field(ge=2, le=8)] | None = None
    alone: bool = False

    @field_validator("targets", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class Settings(Frozen):
    """All that tells one recipe from another.

    Attributes:
        move: the kinds of parameters that move, separated by commas, or ``all-float`` (``--move``). Several kinds are
            probed separately, each with its own ε, η and C.
        unit: what eps and lr are measured in. ``relative``: the magnitude at which each coordinate starts. ``signed``:
            the value at which it starts, sign included. ``absolute``: 1, and coordinates keep their sign. ``free``: 1,
            without bounds. ``spread``: the root mean square of the tensor. ``cells``: the step between two integers.
        blocks: the blocks that move (``--blocks``): ``11``, ``10-24``, ``10-``, ``middle`` or ``all``. ``auto``: model
            and task decide (:mod:`forq.runs.settled`).
        groups: what a kind has of its own.
        lora: the adapters, where they move.
        decisions: the law of what a step decides. 3: whole cells walk only as far as their noise may cost
            (:data:`forq.recipes.plan.COST`); 2 had no such bound. Since 2, noise laws go in turn over the steps
            (:attr:`forq.scalars.directions.Directions.over_steps`), and an audit takes a direction whose sides are
            equally better than staying; with 1, every step begins with the first law, and such a direction is dropped.
            Not to be chosen: journals without it are of 1, and their runs go on so.
    """

    move: str
    unit: Unit
    blocks: str = "all"
    estimator: EstimatorSettings
    rule: RuleSettings
    groups: Mapping[str, GroupSettings] = Field(default_factory=dict)
    lora: LoraSettings = Field(default_factory=LoraSettings)
    decisions: Literal[1, 2, 3] = 3

    @field_validator("blocks", mode="before")
    @classmethod
    def _range_of_blocks(cls, value: object) -> object:
        text = str(value) if type(value) is int else value
        if not isinstance(text, str) or re.fullmatch(r"auto|all|middle|\d+(-\d*)?", text) is None:
            raise ConfigError(f"blocks: expected a range such as 10-24 or 10-, middle or all, found {value!r}")
        return text

    @model_validator(mode="after")
    def _groups_move(self) -> Settings:
        for name in self.groups:
            if name not in self.kinds:
                raise ConfigError(f"{name}: expected settings of a kind that moves ({self.move}); add it to --move")
        return self

    @model_validator(mode="after")
    def _multiplied(self) -> Settings:
        if not self.by_row:
            return self
        name = self.estimator.name
        unit = next((group.unit for group in self.probed if group.kind == "scales"), "signed")
        if unit != "signed":
            raise ConfigError(
                f"estimator.name={name} multiplies outputs of layers: expected unit=signed for scales, found {unit}; "
                "with another unit set estimator.name=one_sided too"
            )
        if any(law(noise).of_layer for noise in self.estimator.laws):
            raise ConfigError(
                f"estimator.name={name} gives each row a sign of its own for every output: expected another noise than "
                "one sign for a whole layer; set estimator.name=one_sided too"
            )
        if self.shared_form is not None and (self.rule.step != "newton" or self.estimator.step_noise):
            raise ConfigError(
                f"estimator.name={name}: expected rule.step=newton, which weighs rows' own directions and shared "
                f"ones apart, and no estimator.step_noise; set estimator.name={self.shared_form} for other steps"
            )
        return self

    @model_validator(mode="after")
    def _rules_fit(self) -> Settings:
        choices = Choices(self.estimator.name, self.estimator.directions, self.rule.step)
        for registration in registered():
            registration.require(self.rule, choices)
        rated = [self.rule.lr != "auto", self.rule.clip not in ("auto", "off")]
        rated += [own.lr not in ("auto", None) or own.clip is not None for own in self.groups.values()]
        if self.rule.step == "newton" and any(rated):
            raise ConfigError(
                "rule.step=newton sets its own length: leave rule.lr and rule.clip as they are and set rule.newton, or "
                "take --recipe qzo-slopes, whose steps have a rate"
            )
        return self

    def require_followed(self) -> None:
        """Refuse numbers of a kind that the step would not follow.

        No part of the validation: a run of decisions 1 may have such numbers, and its journal must replay.

        Raises:
            ConfigError: kinds have different lengths of a step by signs, or a kind its own share of a Gauss–Newton
                step, of which there is one for all kinds.
        """
        step, kinds = self.rule.step, self.probed
        rates = {kind.lr for kind in kinds}
        # A vote that is left auto has no length to measure; a calibration gives every kind a length of its own.
        apart = len(rates) > 1 or (step == "sign" and len(kinds) > 1 and "auto" in rates)
        if step in ("sign", "vote") and apart:
            found = ", ".join(f"{kind.kind}: {kind.lr}" for kind in kinds)
            raise ConfigError(
                f"rule.step={step} moves every coordinate by one length: expected one rule.lr for all kinds, found "
                f"{found}; leave KIND.lr out and give rule.lr a number; KIND.unit is what it counts"
            )
        if step == "newton" and (own := [kind for kind in kinds if kind.newton != self.rule.newton]):
            raise ConfigError(
                "rule.step=newton takes one step in the directions of all kinds: expected one rule.newton, found "
                f"{own[0].kind}.newton={own[0].newton} and rule.newton={self.rule.newton}; set rule.newton alone"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that move."""
        return tuple(kind.strip() for kind in self.move.split(","))

    @property
    def probed(self) -> tuple[ProbedGroup, ...]:
        """The groups that are probed apart, with their settings."""
        return tuple(self._group(kind, "all" if len(self.kinds) == 1 else kind) for kind in self.kinds)

    @property
    def needs_rows(self) -> bool:
        """Whether the estimator needs the losses of every row of a batch; only then does a journal hold them."""
        return self._estimator.needs_rows

    def with_shared_directions(self) -> Settings:
        """The same method with directions that all rows share; itself if it shares them, or has no such form."""
        if self.shared_form is None:
            return self
        probe = self.estimator.model_copy(update={"name": self.shared_form})
        return self.model_copy(update={"estimator": probe, "unit": "relative"})

    @property
    def by_row(self) -> bool:
        """Whether some probes are by row, for which the scales of a layer move together."""
        return self._estimator.by_row

    @property
    def shared_form(self) -> str | None:
        """The estimator that takes this one's place where all rows have to share their directions, if there is one."""
        return self._estimator.shared_form

    @property
    def _estimator(self) -> type[Estimator]:
        made: type[Estimator] = registry.get("estimators", self.estimator.name).make
        return made

    @property
    def by_layer(self) -> bool:
        """Whether the scales of a layer share their noise: its outputs are multiplied, or all of it."""
        return self.by_row or any(law(noise).of_layer for group in self.probed for noise in group.noise)

    @property
    def needs_curvature(self) -> bool:
        """Whether the step needs the curvature along the probes, which an oracle measures from a task's predictions."""
        return self.rule.step == "newton"

    @property
    def portable(self) -> bool:
        """Whether every machine draws the same noise."""
        probes = {noise for group in self.probed for noise in group.noise}
        steps = {step for probe, step in self.estimator.steps_by.items() if probe in probes}
        return all(law(sized(noise, 0.5)).portable for noise in probes | steps)

    def domain(self, leaf: Leaf, x: Tensor) -> Domain:
        """Where the coordinates of a leaf may go; see :class:`forq.coordinates.space.Space`."""
        found = DOMAINS[self._group(self.kinds[0] if len(self.kinds) == 1 else leaf.group, "").unit](leaf, x)
        return replace(found, skip_edge=True) if self.rule.edge == "skip" and found.lattice else found

    def _group(self, kind: str, name: str) -> ProbedGroup:
        own, probe, rule = self.groups.get(kind, GroupSettings()), self.estimator, self.rule
        # A recipe of the lattice says itself how far and how many; under another, integers move few at a time.
        whole = kind in INTEGERS or (kind == "lora" and self.lora.bits is not None)
        coarse = whole and self.unit != "cells"
        cell, sparse = (1.0, ("sparse:0.02",)) if coarse else (probe.eps, probe.laws)
        return ProbedGroup(
            name,
            kind,
            cell if own.eps is None else own.eps,
            rule.lr if own.lr is None else own.lr,
            rule.clip if own.clip is None else own.clip,
            rule.newton if own.newton is None else own.newton,
            sparse if own.noise is None else own.noise,
            usual_unit(kind, self.unit, integer=whole) if own.unit is None else own.unit,
            rule.step == "vote",
            standardises(rule),
            float(probe.directions),
            rule.step == "newton",
        )


Model = TypeVar("Model", bound=BaseModel)


def checked(kind: type[Model], tree: Mapping[str, Any]) -> Model:
    """Plain values as settings.

    Raises:
        ConfigError: a key is unknown or a value cannot be; all that is wrong is listed.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(refusal(error)) from error


def settings(tree: Mapping[str, Any]) -> Settings:
    """A method's settings from plain values, as a journal's header holds them; without ``decisions`` they are of 1.

    Raises:
        ConfigError: see :func:`checked`.
    """
    return checked(Settings, {"decisions": 1, **tree})
