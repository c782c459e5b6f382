"""The share of a network that a run moves; refuses float methods on almost fully quantized networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from forq.coordinates.leaf import GROUPS, QUANTIZED
from forq.errors import ConfigError
from forq.inspection.memory import Summary
from forq.recipes.settings import Settings

FLOATS = tuple(kind for kind in GROUPS if kind not in (*QUANTIZED, "lora", "activations"))
"""The kinds of leaves in float checkpoints."""

MOST = 0.9
"""Above this share of quantized weights, moving only the float weights is refused."""


def moves(counts: Mapping[str, int], summary: Summary) -> str:
    """A sentence on what moves.

    Args:
        counts: number of coordinates that move, by kind.
        summary: the summary of the checkpoint.
    """
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    share = 100.0 * sum(counts.values()) / max(1, summary.parameters)
    return f"moves: {kinds} ({share:.2g} % of {summary.parameters:,}, the number of the network's weights)"


def chosen(move: str | None, sets: Iterable[str]) -> bool:
    """Whether the user sets what moves, by ``--move`` or by ``--set move=…``."""
    return move is not None or any(text.partition("=")[0].strip() == "move" for text in sets)


def require_floats(recipe: str, method: Settings, summary: Summary) -> None:
    """Refuse a recipe for float weights on a checkpoint that is almost fully quantized.

    Raises:
        ConfigError: the recipe moves only float weights, and a share above ``MOST`` is quantized.
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
