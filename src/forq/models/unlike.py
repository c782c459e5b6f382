"""Differences between forq's computation and that of a format's owner."""

from __future__ import annotations

from types import ModuleType

from forq.checkpoints import Checkpoint
from forq.checkpoints.patch import unread
from forq.layers.linear import Activations


def unlike(form: ModuleType | None, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """Sentences on what a format's owner computes and forq does not, and on weights that forq does not read."""
    notes: tuple[str, ...] = form.unlike(ckpt, activations) if hasattr(form, "unlike") else ()  # type: ignore[union-attr]
    if not (others := unread(ckpt.folder, ckpt.contents)):
        return notes
    return (
        *notes,
        f"forq does not read the weights {', '.join(others)} beside it: a save that patches copies them untuned",
    )
