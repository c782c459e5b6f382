"""forq inspect: what a checkpoint holds, what can move, and what tuning it would take."""

from __future__ import annotations

from dataclasses import asdict

from forq.cli import _arguments as given


def inspect(checkpoint: given.Checkpoint, as_json: given.Json = False) -> None:
    """Show format, bits and groups, what can move, and the memory of five ways to tune it; loads no tensor."""
    from forq.cli import _screen
    from forq.formats.checkpoint import Checkpoint
    from forq.memory import summary

    ckpt = Checkpoint.open(checkpoint)
    found = summary(ckpt)
    if as_json:
        _screen.data({"path": str(ckpt.path), **asdict(found)})
        return
    how = f"{found.format}, {found.bits} bits, group {found.group_size}" if found.bits else "float"
    _screen.out.print(
        f"{ckpt.path}\n{found.model_type}: {found.parameters:,} parameters, {found.quantized:,} of them in "
        f"{found.layers} quantized layers\n{how}, {_screen.size(found.file_bytes)} of tensors",
        highlight=False,
        soft_wrap=True,
    )
    _screen.table("can move", ["kind", "coordinates"], [[kind, f"{n:,}"] for kind, n in found.moves.items()])
    _screen.table(
        "memory to tune it, activations aside",
        ["method", "at least", "made up of"],
        [[one.method, _screen.size(one.memory_bytes), one.made_of] for one in found.estimates],
    )
