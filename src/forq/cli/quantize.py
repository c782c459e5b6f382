"""forq quantize: a quantized checkpoint from a float one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given


def quantize(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="A float checkpoint: a local folder or a hub id.", parser=given.source),
    ],
    place: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="The same as --out.", parser=given.path, show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write, new or empty.", parser=given.path, metavar="PATH")
    ] = None,
    to: Annotated[
        str, typer.Option(help="Format: gptq; or nf4 or fp4, which are bitsandbytes' 4-bit formats.")
    ] = "gptq",
    bits: Annotated[int, typer.Option(help="Bits of a code, for gptq: 2, 3, 4 or 8.")] = 4,
    group_size: Annotated[
        int, typer.Option(help="Number of inputs that share a scale; -1: the whole row, for gptq.")
    ] = 64,
    asym: Annotated[
        bool,
        typer.Option("--asym", help="Give each group its own zero point, for gptq; by default, ranges are symmetric."),
    ] = False,
    checkpoint_format: Annotated[
        str, typer.Option(help="How gptq stores zero points: gptq (minus one) or gptq_v2.")
    ] = "gptq",
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Layer to leave in float: its name, the end of its name, or a pattern with *; repeatable.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: given.Json = False,
) -> None:
    """Round a float model to nearest and write it as a GPTQ or bitsandbytes checkpoint."""
    from forq.checkpoints import Checkpoint
    from forq.cli import _screen
    from forq.models.convert.quantize import quantize as make
    from forq.models.unlike import embedded
    from forq.report.words import counted

    if out is not None and place is not None:
        raise typer.BadParameter(f"expected one folder to write, found {place} too: leave one out", param_hint="--out")
    if (out := out or place) is None:
        raise typer.BadParameter("expected a folder to write, found none: give --out FOLDER", param_hint="--out")
    if not overwrite:
        given.free(out, "choose another --out, or replace it with --overwrite")
    left = [name.strip() for text in keep or () for name in text.split(",") if name.strip()]
    made = make(source, out, bits, group_size, not asym, checkpoint_format, to=to, keep=left, overwrite=overwrite)
    for sentence in embedded(Checkpoint.open(source), way_out=""):
        _screen.err.print(f"note: {sentence}", highlight=False, soft_wrap=True)
    if as_json:
        _screen.data(
            {
                "path": str(made.path),
                "layers": made.layers,
                "relative_error": made.relative_error,
                "kept": list(made.kept),
            }
        )
    else:
        error = f"relative squared error {made.relative_error:.2e}"
        how = f"{bits} bits" if to == "gptq" else to.upper()
        _screen.out.print(f"{counted(made.layers, 'layer')} at {how}, group {group_size}, {error} → {made.path}")
        if made.kept:
            _screen.out.print(
                f"{counted(len(made.kept), 'layer')} in float: {', '.join(made.kept)}", highlight=False, soft_wrap=True
            )
