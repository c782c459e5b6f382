"""Differences between forq's computation and that of a format's owner."""

from __future__ import annotations

from forq.checkpoints import Checkpoint
from forq.checkpoints.patch import unread
from forq.formats import Format
from forq.layers.linear import Activations


def unlike(form: Format | None, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """Sentences on what a format's owner computes and forq does not, and on weights that forq does not read."""
    computed = () if form is None else form.unlike(ckpt, activations)
    if projectors := ckpt.contents.values.get("unread"):
        computed += (f"forq reads text alone: {', '.join(projectors)} beside the model is neither read nor copied",)
    if not (others := unread(ckpt.folder, ckpt.contents)):
        return computed
    return (
        *computed,
        f"forq does not read the weights {', '.join(others)} beside it: a save that patches copies them untuned",
    )
