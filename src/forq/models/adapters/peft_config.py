"""Read rank, alpha and targets from a ``peft.LoraConfig``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from forq.errors import ConfigError, FormatError
from forq.models.adapters.settings import AT_REST, checked

_CHOICE_OF_LAYERS = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""Settings other than ``target_modules`` that choose layers."""


class Config(Protocol):
    """A ``peft.LoraConfig``, or anything with its fields."""

    def to_dict(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Beginning:
    """The settings of a ``peft.LoraConfig`` that :func:`forq.add_lora` uses."""

    rank: int
    alpha: float
    targets: str | tuple[str, ...]


def beginning(config: Config) -> Beginning:
    """Rank, alpha and targets of a ``peft.LoraConfig``.

    Raises:
        ConfigError: a setting (named) changes the result in a way forq does not compute.
    """
    fields = config.to_dict()
    where = type(config).__name__
    for key in _CHOICE_OF_LAYERS:
        if fields.get(key) not in (*AT_REST, [], set()):
            raise ConfigError(f"{where}: expected {key} to be unset, found {fields[key]!r:.80}; name target_modules")
    if fields.get("lora_dropout"):
        raise ConfigError(
            f"{where}: expected lora_dropout 0, found {fields['lora_dropout']}; forward-only training has no dropout"
        )
    if fields.get("init_lora_weights", True) is not True:
        raise ConfigError(f"{where}: expected init_lora_weights True, found {fields['init_lora_weights']!r}")
    try:
        plain = {key: value for key, value in fields.items() if value not in (set(), ())}
        settings = checked(
            where, {**plain, "peft_type": str(getattr(fields["peft_type"], "value", fields["peft_type"]))}
        )
    except FormatError as error:
        raise ConfigError(str(error)) from error
    if settings.ranks or settings.alphas:
        raise ConfigError(
            f"{where}: expected one rank and one alpha for all layers, found rank_pattern or alpha_pattern"
        )
    return Beginning(settings.rank, settings.alpha_of(""), _targets(where, fields.get("target_modules")))


def _targets(where: str, modules: object) -> str | tuple[str, ...]:
    """The layers in ``target_modules``; by default queries and values, as in PEFT."""
    if modules is None:
        return "qv"
    if modules == "all-linear":
        return "all-linear"
    if isinstance(modules, list | tuple | set):
        return tuple(sorted(map(str, modules)))
    raise ConfigError(f"{where}: expected target_modules as a list or 'all-linear', found {modules!r:.80}")
