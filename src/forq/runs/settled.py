"""What a method leaves open until model and task are known: blocks, damping, noise, and how directions are shared."""

from __future__ import annotations

from collections.abc import Iterable

from forq.coordinates.leaf import Leaf
from forq.coordinates.profile import Profile
from forq.errors import ConfigError
from forq.models.blocks import ALL, MIDDLE, block_of, within
from forq.noise.law import AUTO
from forq.recipes.probe import USUAL
from forq.recipes.settings import Settings
from forq.runs import noise_sharing
from forq.scalars.chain import own
from forq.scalars.rules import newton
from forq.tasks import Draws, Task
from forq.tasks.kinds.choice import Choice
from forq.tasks.rows.classed import Classed

DEEP = 12
"""Least number of blocks for ``middle`` to be chosen; shallower networks were not measured."""

DAMPED = 1.0
"""Damping of steps that learn classes. It keeps them from following the bias of the classes' words, which a batch of
few rows estimates badly."""

CLASSES = ("layers:rademacher", "rows:rademacher")
"""Noise of scales that learn classes, whose few rows show little of the gradient: half of the directions are factors
of whole layers."""

FACTORS = ("relative", "signed")
"""Units of a scale's own size, with which one number multiplies a layer; other units are kept."""

COMMON = "all rows share the bias of the classes' words, which only shared directions can correct"
"""Why steps that learn classes share their directions."""

NOISED = "on noised pictures, directions of each row's own gained nothing"
"""Why steps of a diffusion model share them (measured on a toy, ``LOG.md``)."""


def settled_method(
    method: Settings, leaves: Iterable[Leaf], task: Task, *, profile: Profile | None
) -> tuple[Settings, str | None]:
    """The method with every ``auto`` settled that model and task decide, and why rows share directions, if they do.

    Where a language model learns classes, late blocks and the head shift all rows towards one word, and early ones see
    little of the class; both add noise to every step. So the middle half of a deep one moves (``docs/learning.md``,
    "Where to move"), rows share their directions, and steps are damped. Where any network learns classes, half of the
    directions multiply whole layers.

    Args:
        profile: says what moves, in place of blocks, if there is one.

    Returns:
        The reason is None where the method does not probe by row, or can.

    Raises:
        ConfigError: the method needs probes by row, and model or task have none.
    """
    leaves = list(leaves)
    words = isinstance(task, Choice)
    if method.blocks == "auto":
        numbers = {block_of(leaf.name) for leaf in leaves} - {None}
        middle = words and method.kinds == ("scales",) and len(numbers) >= DEEP and profile is None
        method = method.model_copy(update={"blocks": MIDDLE if middle else ALL})
    why = noise_sharing.why_shared(within(leaves, method.blocks), task, profile) if method.by_row else None
    if method.shared_form is not None and isinstance(task, Draws):
        why = why or NOISED
    damping = own(method.rule, newton.Settings).damping
    if method.by_row and words and damping != "confirmed":  # as runs from before this was settled have it
        why = why or COMMON
    if damping == "auto":
        rule = method.rule.model_copy(update={"damping": DAMPED if words else "confirmed"})
        method = method.model_copy(update={"rule": rule})
    if why is not None:
        if (together := method.with_shared_directions()).by_row:
            raise ConfigError(
                f"estimator.name={method.estimator.name}: expected rows with directions of their own, found none: "
                f"{why}; take --recipe qzo"
            )
        method = together
    return _with_noise(method, classes=isinstance(task, Classed)), why


def _with_noise(method: Settings, *, classes: bool) -> Settings:
    if method.estimator.noise != (AUTO,):
        return method
    whole = classes and method.kinds == ("scales",) and not method.by_row and method.unit in FACTORS
    probe = method.estimator.model_copy(update={"noise": CLASSES if whole else USUAL})
    # Scale and minimum of a layer are multiplied by one factor.
    return method.model_copy(update={"estimator": probe, "unit": "signed" if whole else method.unit})
