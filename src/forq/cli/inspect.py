"""forq inspect: what a checkpoint holds, what can move, and what tuning it would take."""

from __future__ import annotations

from dataclasses import asdict

from forq.cli import _arguments as given


def inspect(checkpoint: given.Checkpoint, as_json: given.Json = False) -> None:
    """Show the format, what can move, what a save looks like, and the memory and time it takes; loads no tensor."""
    from forq.cli import _screen
    from forq.formats.checkpoint import Checkpoint
    from forq.memory import summary
    from forq.pace import TOKENS, seconds_a_forward

    ckpt = Checkpoint.open(checkpoint)
    found = summary(ckpt)
    forward = seconds_a_forward(ckpt)
    if as_json:
        _screen.data({"path": str(ckpt.path), **asdict(found), "seconds_a_forward": forward, "tokens": TOKENS})
        return
    widths = ", ".join(map(str, found.widths))
    rows = "one scale a matrix" if found.scales == found.layers else "one scale a row"
    group = rows if found.group_size == -1 else f"group {found.group_size}"
    how = f"{found.format}, {widths} bits, {group}" if found.bits else "float"
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
    _screen.out.print(
        f"a forward of {TOKENS:,} tokens: its products alone take about {forward:.2g} s on this CPU, "
        f"those of a step of qzo (nine) {9 * forward:.2g} s",
        highlight=False,
        soft_wrap=True,
    )
    for sentence in found.unlike:
        _screen.out.print(sentence, highlight=False, soft_wrap=True)
    if found.exported:
        _screen.out.print(f"a save is {found.exported}", highlight=False, soft_wrap=True)
