"""Differences between forq's computation and that of a format's owner, and between a checkpoint and what was tuned."""

from __future__ import annotations

from functools import cache

from forq.checkpoints import Checkpoint
from forq.checkpoints.patch import unread
from forq.formats import Format
from forq.layers.linear import Activations
from forq.models import pooling
from forq.models.adapters.settings import CONFIG as ADAPTER
from forq.models.families import kind_of


def unlike(form: Format | None, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """Sentences on what a format's owner computes and forq does not, and on weights that forq does not read."""
    computed = () if form is None else form.unlike(ckpt, activations)
    notes: tuple[str, ...] = ckpt.contents.values.get("notes", ())
    computed += notes + _without_head(ckpt) + _other_code(ckpt) + _long_texts(ckpt) + pooling.left_out(ckpt)
    if not (others := unread(ckpt.folder, ckpt.contents)):
        return computed
    return (
        *computed,
        f"forq does not read the weights {', '.join(others)} beside it: a save that patches copies them untuned",
    )


def _without_head(ckpt: Checkpoint) -> tuple[str, ...]:
    """A sentence on a decoder that was saved without its language head: the embedding takes its place."""
    named = ckpt.config.get("architectures")
    head = str(named[0]) if isinstance(named, list) and named else ""
    if ckpt.graph is not None or not head.endswith("Model") or head.endswith("LMHeadModel"):
        return ()
    if kind_of(ckpt.contents) != "causal":
        return ()
    return (
        f"config.json names {head}, which has no language head; forq takes the embedding for it, as transformers' "
        "AutoModelForCausalLM does",
    )


def _other_code(ckpt: Checkpoint) -> tuple[str, ...]:
    """A sentence on a class of the repository's own, which transformers runs in place of its class if it is trusted."""
    named = ckpt.config.get("auto_map")
    told = named if isinstance(named, dict) else {}
    for maker, value in told.items():
        own = str(value[0] if isinstance(value, list) else value)
        # Many repositories carry a copy of transformers' own class.
        if maker.startswith("AutoModel") and own.rpartition(".")[2] not in _classes():
            return (
                f"config.json names code of its own, {own:.80} ({maker}); forq never runs it and computes "
                "transformers' class: with trust_remote_code the model may answer otherwise",
            )
    return ()


@cache
def _classes() -> frozenset[str]:
    """The names of transformers' classes."""
    import transformers

    return frozenset(dir(transformers))


def _long_texts(ckpt: Checkpoint) -> tuple[str, ...]:
    """A sentence on rotary factors that depend on the longest text of a forward."""
    config = ckpt.config
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or (rope.get("rope_type") or rope.get("type")) != "longrope":
        return ()
    within = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    longest = config.get("max_position_embeddings")
    if not isinstance(within, int) or not isinstance(longest, int) or within >= longest:
        return ()
    return (
        f"texts of more than {within:,} tokens are rotated by the long factors, and so are shorter ones that are "
        "computed beside them, as in transformers (longrope): keep texts of both kinds apart, or all within "
        f"{within:,} tokens",
    )


_ASKED = " unless the folder is given by --adapter too (adapter= in Python)"


def embedded(ckpt: Checkpoint, way_out: str = _ASKED) -> tuple[str, ...]:
    """A sentence on an adapter among the checkpoint's own files, which transformers adds without being asked.

    Args:
        way_out: what to do about it; the end of the sentence.
    """
    if not ckpt.path.is_dir() or ckpt.contents.component is not None:
        return ()
    if not (ckpt.folder / ADAPTER).is_file():
        return ()
    return (
        "an adapter lies beside the weights (adapter_config.json), and transformers adds it to the model where PEFT is "
        f"installed; forq leaves it out{way_out}",
    )


def left_out(ckpt: Checkpoint, way_out: str = "") -> tuple[str, ...]:
    """A sentence on the adapter that was saved with a checkpoint, for a command that uses the checkpoint alone.

    Args:
        way_out: what to do about it; the end of the sentence.
    """
    run = ckpt.folder.parent
    of_run = ckpt.folder.name == "checkpoint" and (run / "journal.jsonl").is_file()
    for adapter in (ckpt.folder / "adapter", *([run / "adapter"] if of_run else [])):
        if (adapter / ADAPTER).is_file():
            return (f"{ckpt.folder} was tuned together with the adapter {adapter}, which is left out here{way_out}",)
    return ()
