"""The methods of the honest table: one description each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Form = Literal["published", "dequantised", "nf4"]


@dataclass(frozen=True)
class Method:
    """A way to tune a file within a budget of forward passes.

    Attributes:
        says: one sentence for the page.
        form: which file it starts from: the published one, its dequantised weights in float32, or these in NF4.
        by: ``forwards`` is ``forq tune``, ``gradients`` is ``experiments/backprop.py``, ``nothing`` scores the file.
        words: of the command.
        rates: learning rates to choose from on validation with seed 0; empty: nothing is chosen.
    """

    says: str
    form: Form = "published"
    by: Literal["nothing", "forwards", "gradients"] = "forwards"
    words: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()


_RATES = ("1e-5", "1e-4", "1e-3", "1e-2")
"""Three orders of magnitude for steps of all scales or weights."""

_OF_LENGTHS = ("1e-4", "1e-3", "1e-2", "3e-2", "1e-1")
"""The same for slopes in units of their spread, and the rate that is the recipe's own."""

_OF_FACTORS = ("1e-4", "1e-3", "1e-2", "1e-1")
"""The same for what begins at 0: relative changes of scales, and adapters."""


def _gradients(says: str, what: str, form: Form = "published", rates: tuple[str, ...] = _OF_FACTORS) -> Method:
    return Method(says, form, "gradients", ("--what", what), rates)


METHODS: Mapping[str, Method] = {
    "zero-shot": Method("the file as published", by="nothing"),
    "qzo": Method("forq's default: nothing is set"),
    "qzo-paper-tuned": Method(
        "QZO with its paper's settings, the learning rate chosen (arXiv 2505.13430)",
        words=("--recipe", "qzo-paper"),
        rates=_RATES,
    ),
    "grzo": Method(
        "scales move by slopes of every row's own direction (arXiv 2606.02857)",
        words=("--recipe", "grzo"),
        rates=_OF_LENGTHS,
    ),
    "zoqo": Method("codes move by the sign of a loss difference (arXiv 2501.06736)", words=("--recipe", "zoqo")),
    "quzo": Method("codes move by a rounded direction (arXiv 2502.12346)", words=("--recipe", "quzo")),
    "qes": Method("codes move by a population with error feedback (arXiv 2602.03120)", words=("--recipe", "qes")),
    "mezo": Method(
        "every float of the dequantized file moves (arXiv 2305.17333); the file is not quantized any more",
        "dequantised",
        words=("--recipe", "mezo"),
        rates=_RATES,
    ),
    "peqa": _gradients("the same scales by back-propagation (arXiv 2305.14152)", "scales"),
    "lora": _gradients("adapters of rank 8 by back-propagation, beside the published file", "lora"),
    "qlora": _gradients("the same adapters over NF4 of the dequantized file (arXiv 2305.14314)", "lora", "nf4"),
    "full": _gradients("every weight of the dequantized file by back-propagation", "full", "dequantised", _RATES),
}

SOME = ("zero-shot", "qzo", "zoqo", "qzo-paper-tuned", "peqa")
"""Run on every problem; the others on the core alone."""


def chosen(core: bool, apart: bool) -> tuple[str, ...]:
    """The methods of a problem; `grzo` needs rows that can see directions of their own."""
    return tuple(name for name in METHODS if (core or name in SOME) and (apart or name != "grzo"))
