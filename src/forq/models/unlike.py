"""Differences between forq's computation and that of a format's owner."""

from __future__ import annotations

from forq.checkpoints import Checkpoint
from forq.checkpoints.patch import unread
from forq.formats import Format
from forq.layers.linear import Activations


def unlike(form: Format | None, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """Sentences on what a format's owner computes and forq does not, and on weights that forq does not read."""
    computed = () if form is None else form.unlike(ckpt, activations)
    notes: tuple[str, ...] = ckpt.contents.values.get("notes", ())
    computed += notes
    if not (others := unread(ckpt.folder, ckpt.contents)):
        return computed
    return (
        *computed,
        f"forq does not read the weights {', '.join(others)} beside it: a save that patches copies them untuned",
    )
