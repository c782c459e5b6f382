"""forq demo: the main job on the model forq ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given

FORWARDS = 2700


def demo(
    out: Annotated[
        Path, typer.Option(help="The folder to make; new or empty.", parser=given.path, metavar="PATH")
    ] = Path("demo-run"),
    forwards: Annotated[int, typer.Option(help="Budget of forward passes.", min=1)] = FORWARDS,
) -> None:
    """Tune the shipped 4-bit model with forward passes only, and show before and after.

    The model learned English prose; the task is the same prose in capitals, the docstrings of this Python.
    Nothing is downloaded. About four minutes on two cores.
    """
    from forq.cli import _screen, _tuning
    from forq.demo import CHECKPOINT
    from forq.demo.corpus import upper_docs
    from forq.report import page
    from forq.report.record import read_all
    from forq.runs.config import TaskConfig, complete

    given.free(out, "choose another --out")
    # The texts first: where there are none, no folder is left that would be in the way of the next try.
    texts = upper_docs(400_000)
    data = out / "data"
    data.mkdir(parents=True)
    for name, text in zip(("train", "validation", "test"), texts, strict=True):
        (data / f"{name}.txt").write_text(text, encoding="utf-8")
    task = TaskConfig(name="text", data=str(data), options={"batch_rows": 4, "validation_rows": 48, "test_rows": 96})
    config = complete(None, forwards=forwards, checkpoint=str(CHECKPOINT), task=task)
    _tuning.tune(config, out / "run")
    (record,) = read_all([out / "run"])
    for name, text in (record.samples or {}).items():
        _screen.out.print(f"\n[bold]{name}[/bold], sampled from one held-out beginning:", highlight=False)
        _screen.out.print(text, highlight=False, markup=False)
    page.write([record], out / "report.html")
    _screen.out.print(f"\nreport      {out / 'report.html'}", highlight=False, soft_wrap=True)
