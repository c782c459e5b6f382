"""Options as they are typed: what the library refuses names an argument, the command line an option."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_type_hints

from typer.models import OptionInfo

_FIRST = re.compile(r"(rank \d+: )?([a-z][a-z_]*)(?: ([^\s:]+))?:(?: |$)")
_COUNTED = ("step", "rank")
"""Words that begin sentences about one of many: ``step 5: …`` is of no option."""


def as_typed(message: str, command: Callable[..., Any] | None) -> str:
    """A message whose first word is an option of the command, with the option as it is typed.

    ``move: expected kinds …`` becomes ``--move: expected kinds …``, in the message of a rank too.
    """
    first = _FIRST.match(message)
    if command is None or first is None or (first[2] in _COUNTED and first[3]):
        return message
    typed = _typed(command)
    if first[2] not in typed:
        return message
    return message[: first.start(2)] + typed[first[2]] + message[first.end(2) :]


def _typed(command: Callable[..., Any]) -> dict[str, str]:
    """The options of a command as they are typed, by the names of its arguments."""
    hints = get_type_hints(command, include_extras=True)
    infos = {name: info for name, hint in hints.items() for info in getattr(hint, "__metadata__", ())}
    return {
        name: next(iter(info.param_decls or ()), f"--{name.replace('_', '-')}")
        for name, info in infos.items()
        if isinstance(info, OptionInfo)
    }
