"""How much of a network a run moves, and methods for float weights on a network that has next to none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from forq.coordinates.leaf import GROUPS, QUANTIZED
from forq.errors import ConfigError
from forq.inspection.memory import Summary
from forq.recipes.settings import Settings

FLOATS = tuple(kind for kind in GROUPS if kind not in (*QUANTIZED, "lora"))
"""The kinds that float checkpoints are made of."""

MOST = 0.9
"""Share of a network's weights; where more are quantized, its float weights are not the network."""


def moves(counts: Mapping[str, int], summary: Summary) -> str:
    """What moves, in words.

    Args:
        counts: coordinates that move, by kind.
        summary: what the checkpoint holds.
    """
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    share = 100.0 * sum(counts.values()) / max(1, summary.parameters)
    return f"moves: {kinds} ({share:.2g} % of {summary.parameters:,}, the number of the network's weights)"


def chosen(move: str | None, sets: Iterable[str]) -> bool:
    """Whether the user says what moves, by ``--move`` or among the texts of ``--set``."""
    return move is not None or any(text.partition("=")[0].strip() == "move" for text in sets)


def require_floats(recipe: str, method: Settings, summary: Summary) -> None:
    """Refuse a recipe for float weights on a checkpoint whose weights are nearly all quantized.

    Raises:
        ConfigError: the recipe moves float weights alone, and more than ``MOST`` of the weights are quantized.
    """
    kinds = set(method.kinds)
    if not kinds <= {"all-float", *FLOATS} or summary.quantized <= MOST * summary.parameters:
        return
    moved = sum(count for kind, count in summary.moves.items() if kind in (FLOATS if "all-float" in kinds else kinds))
    raise ConfigError(
        f"recipe {recipe} moves {method.move}: expected a checkpoint with float weights, found "
        f"{summary.quantized:,} of {summary.parameters:,} weights quantized, so that {moved:,} would move; take "
        f"--recipe qzo, which moves the scales, or give the float checkpoint; with --move {method.move} the "
        "recipe moves them all the same"
    )
