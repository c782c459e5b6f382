"""What a format says of itself: the page on formats, ``forq ls formats`` and ``forq inspect`` are made of it."""

from __future__ import annotations

from dataclasses import dataclass

from forq.layers.linear import Activations


@dataclass(frozen=True, slots=True)
class About:
    """One format in words.

    Attributes:
        title: its name as people write it.
        bits: of its codes, in words: ``2, 3, 4, 8``.
        moves: kinds of leaves that can move (:data:`forq.coordinates.leaf.GROUPS`).
        exported: what a saved checkpoint is, and what is lost on the way; the rest of "a save is …".
        exceptions: bytes of a save that change although nothing moved there, a phrase each; none is the rule.
        library: the library the format belongs to, and its version that was seen to load what forq saved; or why none.
        layout: the tensors of a layer and their shapes, a line each.
        zero_points: what decides a zero point where configuration and tensors could disagree; a sentence, "" where
            they cannot.
    """

    title: str
    bits: str
    moves: tuple[str, ...]
    exported: str
    library: str
    layout: tuple[str, ...]
    exceptions: tuple[str, ...] = ()
    zero_points: str = ""


def inputs_here(activations: Activations, owner: str) -> str:
    """What becomes here of inputs that the owner of a format rounds; the end of a sentence of ``unlike``."""
    if activations == "float":
        return (
            f"here inputs stay in float: losses are those of the weights alone, and {owner}'s differ by what that "
            "rounding costs"
        )
    return (
        "here --activations int8 rounds them in a way of its own, in the layers that allow it: losses differ from "
        f"{owner}'s by how the two round"
    )
