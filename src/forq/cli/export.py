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
    to: Annotated[
        str,
        typer.Option(
            help="Target: gptq, awq, compressed-tensors, gguf, gguf-lora (adapters), float16, bfloat16 or float32."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.", parser=given.path, metavar="PATH")],
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a LoRA adapter in PEFT's format, for --to gguf-lora. Default: the run's.",
            parser=given.path,
            metavar="PATH",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: given.Json = False,
) -> None:
    """Convert a checkpoint to another format, exactly or with only float rounding, and report what is lost."""
    from forq.checkpoints import Checkpoint
    from forq.cli import _screen
    from forq.cli._finished import finished
    from forq.errors import ConfigError
    from forq.models.convert.export import LORA, targets
    from forq.models.convert.export import export as make
    from forq.models.unlike import embedded, left_out
    from forq.report.words import counted

    if not overwrite and to.replace("_", "-") in targets():  # of an unknown target that is said first, below
        given.free(out, "choose another --out, or replace it with --overwrite")
    if (run := finished(source)) is not None:
        if to.replace("_", "-") == LORA:
            adapter = adapter or run.adapter
        elif run.saved == run.base and to.replace("_", "-") in targets():
            raise ConfigError(
                f"{source}: expected a finished run with a checkpoint, found none; adapters are PEFT's already, and "
                f"--to {LORA} writes them for llama.cpp"
            )
        elif run.adapter is not None and to.replace("_", "-") in targets():
            raise ConfigError(
                f"{source}: expected a run of which only the checkpoint moved, found one with an adapter too, which "
                f"--to {to} cannot hold; give {run.saved} to leave the adapter out, and --to {LORA} to write it for "
                "llama.cpp"
            )
        source = run.saved
    done = make(source, out, to, adapter=adapter, overwrite=overwrite)
    ckpt = Checkpoint.open(source)
    alone = left_out(ckpt) + embedded(ckpt, way_out="") if adapter is None else ()
    notes = (*alone, *done.notes)
    if as_json:
        told = {"layers": done.layers, "weights": done.weights, "changed": done.changed, "max_change": done.max_change}
        _screen.data({"path": str(done.path), "to": to, **told, "notes": list(notes)})
        return
    lost = (
        "every weight is the same number"
        if done.changed == 0
        else (f"{done.changed:,} of {done.weights:,} weights were rounded, by {done.max_change:.1e} at most")
    )
    for note in notes:
        _screen.err.print(note, highlight=False, soft_wrap=True)
    _screen.out.print(f"{counted(done.layers, 'layer')} as {to}; {lost} → {done.path}", highlight=False, soft_wrap=True)
