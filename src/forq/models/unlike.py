"""Differences between forq's computation and that of a format's owner, and between a checkpoint and what was tuned."""

from __future__ import annotations

from forq.checkpoints import Checkpoint
from forq.checkpoints.patch import unread
from forq.formats import Format
from forq.layers.linear import Activations
from forq.models import pooling


def unlike(form: Format | None, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """Sentences on what a format's owner computes and forq does not, and on weights that forq does not read."""
    computed = () if form is None else form.unlike(ckpt, activations)
    notes: tuple[str, ...] = ckpt.contents.values.get("notes", ())
    computed += notes + pooling.left_out(ckpt)
    if not (others := unread(ckpt.folder, ckpt.contents)):
        return computed
    return (
        *computed,
        f"forq does not read the weights {', '.join(others)} beside it: a save that patches copies them untuned",
    )


def left_out(ckpt: Checkpoint, way_out: str = "") -> tuple[str, ...]:
    """A sentence on the adapter that was saved with a checkpoint, for a command that uses the checkpoint alone.

    Args:
        way_out: what to do about it; the end of the sentence.
    """
    run = ckpt.folder.parent
    of_run = ckpt.folder.name == "checkpoint" and (run / "journal.jsonl").is_file()
    for adapter in (ckpt.folder / "adapter", *([run / "adapter"] if of_run else [])):
        if (adapter / "adapter_config.json").is_file():
            return (f"{ckpt.folder} was tuned together with the adapter {adapter}, which is left out here{way_out}",)
    return ()
