"""forq predict: a label and scores for every row of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forq.cli import _arguments as given


def predict(
    checkpoint: given.Tuned,
    data: Annotated[str, typer.Option(help="File with the rows to classify (CSV, TSV, JSON lines), or a data set.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, .csv or .jsonl. Default: CSV on stdout.", parser=given.path, metavar="PATH"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Classification task. Default: the run's, or classify.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to classify, if the data set has several.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the task, such as task.labels=labels.csv. Default: the run's options."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Field of the rows to copy into what is written, such as an id; or all. Repeatable.",
        ),
    ] = None,
    micro_batch_tokens: given.MicroBatch = None,
    adapter: given.Adapter = None,
    device: given.Device = "auto",
    kernel: given.Kernel = "auto",
    activations: given.Activations = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    as_json: given.Json = False,
) -> None:
    """Classify the rows of a file with a checkpoint, or with what a run saved."""
    from forq.cli import _screen
    from forq.cli._finished import finished
    from forq.errors import ConfigError
    from forq.models.load import load
    from forq.report.words import counted
    from forq.runs import predict as predictions
    from forq.runs.config import task_config
    from forq.runs.fixed_options import activations_of, source_run, task_of_run

    if out is not None and out.suffix not in predictions.SUFFIXES:
        raise ConfigError(f"--out: expected a name that ends in {' or '.join(predictions.SUFFIXES)}, found {out}")
    if out is not None and out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already: choose another --out, or give --overwrite")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out: expected a folder at {out.parent}, found none; make it, or choose another --out")
    run, tuned = finished(checkpoint), source_run(checkpoint)
    name = task or (tuned.task.name if tuned is not None else "classify")
    predictions.require_classes(name)
    settings = task_config(name, given.data_path(data, name), sets or [], micro_batch_tokens=micro_batch_tokens)
    settings, described = task_of_run(tuned, settings)
    records = predictions.rows_of(settings.data, split)
    fields = predictions.fields_of(records, keep or [])
    where, factors = (checkpoint, adapter) if run is None else (run.saved, adapter or run.adapter)
    how: Any = {"kernel": kernel, "activations": activations_of(tuned, activations, device, kernel)}
    model = load(where, device, adapter=factors, **how)
    _screen.print_notes(model)
    opened = predictions.opened(settings, model, records, described)
    _screen.print_rows(opened, model.checkpoint, settings, named=False)
    _screen.print_activations(tuned, how["activations"])
    predictions.require_free(fields, opened)
    found = predictions.with_fields(predictions.predict(model, opened), records, fields)
    if out is not None:
        predictions.write(found, out)
    if as_json:
        body: dict[str, Any] = {"checkpoint": checkpoint, "task": name, "rows": len(found.labels)}
        body |= {"classes": list(found.names), "counts": found.counts()}
        body |= {"predictions": found.rows()} if out is None else {"out": str(out)}
        _screen.data(body)
    elif out is None:
        typer.echo(found.text(".csv"), nl=False)
    else:
        counts = ", ".join(f"{label} {count:,}" for label, count in found.counts().items())
        _screen.out.print(
            f"{counted(len(found.labels), 'row')} → {out}: {counts}", highlight=False, soft_wrap=True, markup=False
        )
