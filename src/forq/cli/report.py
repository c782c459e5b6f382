"""forq report: what runs did, as one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Folders of one or several runs, finished or not.", parser=given.path),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write. Default: report.html in the run's folder, or here for several runs.",
            parser=given.path,
            metavar="FILE",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --out even if it is not an earlier report.")
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Also write TensorBoard files, one folder in DIR for each run.", parser=given.path, metavar="DIR"
        ),
    ] = None,
    as_json: given.Json = False,
) -> None:
    """Write one HTML page about one or several runs: curves, before and after, what moved; loads no model.

    Runs that differ only in their seed are drawn as their mean and spread.
    """
    from forq.cli import _screen
    from forq.report import page
    from forq.report import tensorboard as board
    from forq.report.record import read_all

    if tensorboard is not None:
        board.require()
    records = read_all(runs)
    target = out or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    page.write(records, target, overwrite=overwrite)
    if tensorboard is not None:
        for record in records:
            for _ in board.written(record.events(), tensorboard / record.name):
                pass
    if as_json:
        _screen.data({"report": str(target), "runs": page.summary(records)})
        return
    _screen.out.print(f"report      {target}", highlight=False, soft_wrap=True)
    if tensorboard is not None:
        _screen.out.print(f"tensorboard --logdir {tensorboard}", highlight=False, soft_wrap=True)
