"""Which layers an adapter_config.json gives an adapter: target_modules, exclude_modules, layers_to_transform.

A list names layers, or the last parts of their names; a text is a regular expression for whole names. Numbers of layers
count for lists alone, and not for a layer that a list names in full. All as in PEFT 0.21.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import regex

from forq.errors import FormatError

_TIMEOUT_S = 1.0
_ALL = "all-linear"
_NUMBERED = (r".*?\.[^.]*",)
"""What stands before the number of a layer if no ``layers_pattern`` says so: any name."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The layers that an adapter is for.

    Attributes:
        targets: a list or an expression; None: every layer with factors.
        excluded: a list or an expression for layers without an adapter.
        numbers: numbers of the layers with one; None: all.
        before: expressions for what stands before such a number.
    """

    targets: tuple[str, ...] | str | None = None
    excluded: tuple[str, ...] | str = ()
    numbers: tuple[int, ...] | None = None
    before: tuple[str, ...] = _NUMBERED

    def carries(self, module: str) -> bool:
        """Whether a layer has an adapter.

        Raises:
            FormatError: an expression cannot be used.
        """
        if _among(module, self.excluded):
            return False
        if self.targets is None or self.targets == _ALL:
            return True
        if isinstance(self.targets, str) or module in self.targets:
            return _among(module, self.targets)
        return _among(module, self.targets) and self._numbered(module)

    def _numbered(self, module: str) -> bool:
        if self.numbers is None:
            return True
        for name in self.before:
            pattern = name if self.before == _NUMBERED else rf"(?:^|.*?\.){name}"
            if (found := _match(rf"(?:{pattern})\.(?P<number>\d+)\..*", module)) is not None:
                return int(found["number"]) in self.numbers
        return False


def chosen(path: str, fields: Mapping[str, object]) -> Chosen:
    """The layers that the fields of a configuration choose; errors name it by ``path``.

    Raises:
        FormatError: a field is of another kind.
    """
    targets, excluded = (_layers(path, key, fields.get(key)) for key in ("target_modules", "exclude_modules"))
    numbers, before = fields.get("layers_to_transform"), fields.get("layers_pattern")
    listed = numbers if isinstance(numbers, list | tuple) else [] if numbers is None else [numbers]
    whole = tuple(number for number in listed if isinstance(number, int))
    if len(whole) < len(listed):
        raise FormatError(f"{path}: expected numbers of layers in layers_to_transform, found {numbers!r:.80}")
    names = _layers(path, "layers_pattern", before) or ()
    names = (names,) if isinstance(names, str) else names
    return Chosen(targets, excluded or (), whole or None, names or _NUMBERED)


def _layers(path: str, key: str, given: object) -> tuple[str, ...] | str | None:
    if given is None or isinstance(given, str):
        return given or None
    if not isinstance(given, list | tuple | set):
        raise FormatError(f"{path}: expected a list or a text in {key}, found {given!r:.80}")
    return tuple(map(str, given))


def _among(module: str, layers: tuple[str, ...] | str) -> bool:
    if isinstance(layers, str):
        return _match(layers, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in layers)


def _match(pattern: str, module: str) -> regex.Match[str] | None:
    try:
        # The file chooses the expression, so its time is bounded.
        return regex.fullmatch(pattern, module, timeout=_TIMEOUT_S)
    except (regex.error, TimeoutError) as error:
        raise FormatError(f"adapter_config.json: the expression {pattern!r:.80} cannot be used: {error}") from error
