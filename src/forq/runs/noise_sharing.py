"""Which leaves of a layer share their noise, and whether a run can show probes by row."""

from __future__ import annotations

from collections.abc import Iterable

from forq.coordinates.leaf import Leaf, ScaleLeaf, Shared
from forq.coordinates.profile import Profile
from forq.layers.leaves import LiveLeaf
from forq.tasks import ReadsApart, Task


def outputs(leaf: Leaf) -> Shared | None:
    """How the scales of a layer share their noise; None for a leaf whose layer cannot multiply its outputs."""
    return leaf.outputs if isinstance(leaf, ScaleLeaf) else None


def layer(leaf: Leaf) -> Shared | None:
    """How all scales of a layer share their noise where whole layers are multiplied; None for other leaves."""
    return Shared(leaf.layer.leaf_name) if isinstance(leaf, LiveLeaf) and leaf.group == "scales" else None


def why_shared(leaves: Iterable[Leaf], task: Task, profile: Profile | None) -> str | None:
    """Why all rows have to share all directions, in words; None where a run can probe by row."""
    if not any(outputs(leaf) for leaf in leaves):
        return "no scale that moves belongs to one output of a layer that forq computes"
    if not (isinstance(task, ReadsApart) and task.read_apart):
        return "the task's rows are not read one by one by a causal language model or a diffusion model"
    return None if profile is None else "a profile shapes the noise"
