"""forq export: a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT", help="A run's folder, or a quantized checkpoint.", parser=given.source
        ),
    ],
    to: Annotated[str, typer.Option(help="gptq, awq, compressed-tensors, gguf, float16, bfloat16 or float32.")],
    out: Annotated[Path, typer.Option(help="The folder to write; new.", parser=given.path, metavar="PATH")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace PATH if it exists.")] = False,
    as_json: given.Json = False,
) -> None:
    """Convert a checkpoint to another format, exactly or with only float rounding, and report what is lost."""
    from forq.cli import _screen
    from forq.errors import ConfigError
    from forq.models.convert.export import export as make

    if not overwrite:
        given.free(out, "choose another --out, or replace it with --overwrite")
    if (Path(source) / "journal.jsonl").is_file():
        run = Path(source)
        if not (run / "checkpoint").is_dir():
            raise ConfigError(
                f"{run}: expected a finished run with a checkpoint, found none; adapters are PEFT's already"
            )
        source = str(run / "checkpoint")
    done = make(source, out, to, overwrite=overwrite)
    if as_json:
        told = {"layers": done.layers, "weights": done.weights, "changed": done.changed, "max_change": done.max_change}
        _screen.data({"path": str(done.path), "to": to, **told, "notes": list(done.notes)})
        return
    lost = (
        "every weight is the same number"
        if done.changed == 0
        else (f"{done.changed:,} of {done.weights:,} weights were rounded, by {done.max_change:.1e} at most")
    )
    for note in done.notes:
        _screen.err.print(note, highlight=False, soft_wrap=True)
    _screen.out.print(f"{done.layers} layers as {to}; {lost} → {done.path}", highlight=False, soft_wrap=True)
