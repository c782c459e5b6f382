"""forq: fine-tune quantized networks with forward passes only.

    model = forq.load("path/to/a/gptq/checkpoint")
    run = forq.tune(model, "text", data="corpus.txt", recipe="qzo", steps=2000, out="run")
    run.checkpoint   # the same kind of checkpoint, with only its scales changed
    run.journal      # kilobytes that rebuild it, bit for bit, from the original

Names are resolved when they are first used, so that ``import forq`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forq.attacks.attack import attack
    from forq.errors import ConfigError, DataError, FormatError, ForqError, JournalError, RunError
    from forq.models.adapters.lora import add_lora
    from forq.models.convert.export import export
    from forq.models.convert.quantize import quantize
    from forq.models.load import load
    from forq.models.space import space
    from forq.runs.optim import QZO, ZeroOrder
    from forq.runs.ranks.tune import tune_on_ranks
    from forq.runs.replay import replay, verify
    from forq.runs.tune import tune

_HOMES = {
    "add_lora": "forq.models.adapters.lora",
    "attack": "forq.attacks.attack",
    "export": "forq.models.convert.export",
    "load": "forq.models.load",
    "quantize": "forq.models.convert.quantize",
    "space": "forq.models.space",
    "QZO": "forq.runs.optim",
    "ZeroOrder": "forq.runs.optim",
    "replay": "forq.runs.replay",
    "verify": "forq.runs.replay",
    "tune": "forq.runs.tune",
    "tune_on_ranks": "forq.runs.ranks.tune",
    **dict.fromkeys(
        ("ForqError", "ConfigError", "DataError", "FormatError", "JournalError", "RunError"), "forq.errors"
    ),
}

__all__ = [
    "QZO",
    "ConfigError",
    "DataError",
    "FormatError",
    "ForqError",
    "JournalError",
    "RunError",
    "ZeroOrder",
    "add_lora",
    "attack",
    "export",
    "load",
    "quantize",
    "replay",
    "space",
    "tune",
    "tune_on_ranks",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'forq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
