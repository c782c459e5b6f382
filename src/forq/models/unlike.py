"""Differences between forq's computation and that of a format's owner, and between a checkpoint and what was tuned."""

from __future__ import annotations

from forq.checkpoints import Checkpoint
from forq.checkpoints.checkpoint import read_json
from forq.checkpoints.patch import unread
from forq.formats import Format
from forq.layers.linear import Activations


def unlike(form: Format | None, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """Sentences on what a format's owner computes and forq does not, and on weights that forq does not read."""
    computed = () if form is None else form.unlike(ckpt, activations)
    notes: tuple[str, ...] = ckpt.contents.values.get("notes", ())
    computed += notes + _pooled(ckpt)
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


def _pooled(ckpt: Checkpoint) -> tuple[str, ...]:
    """Whether sentence-transformers makes a sentence's vector otherwise than by the mean of its tokens."""
    file = ckpt.folder / "1_Pooling" / "config.json"
    told = read_json(file) if file.is_file() else {}
    modes = [key.removeprefix("pooling_mode_") for key, value in told.items() if value is True]
    modes = [mode for mode in modes if mode in _POOLINGS] or [str(told.get("pooling_mode", "mean"))]
    if modes in (["mean_tokens"], ["mean"]):
        return ()
    return (
        f"1_Pooling/config.json makes a sentence's vector by {' and '.join(modes)}; forq compares sentences by the "
        "mean of their tokens, and answers otherwise than sentence-transformers",
    )


_POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
"""sentence-transformers' names, each behind ``pooling_mode_``."""
