"""forq demo: the main job on the model forq ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given

FORWARDS = 1000


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.", parser=given.path, metavar="PATH")] = Path(
        "demo-run"
    ),
    forwards: Annotated[int, typer.Option(help="Budget of forward passes, calibration included.", min=1)] = FORWARDS,
) -> None:
    """Tune the shipped 4-bit model with forward passes only, and show before and after.

    The model learned English prose. The task is to write index cards of Python's functions. A card has three lines:
    the name, what the function takes, and what it does. Nothing is downloaded. It takes a few minutes on two cores.
    """
    from dataclasses import replace

    from rich.text import Text

    from forq.cli import _screen, _tuning
    from forq.cli._guesses import HIDDEN, guesses, typical
    from forq.demo import CHECKPOINT
    from forq.demo.corpus import cards
    from forq.models.load import load
    from forq.report import page
    from forq.report.record import read_all
    from forq.runs.config import TaskConfig, complete
    from forq.runs.open_task import open_task

    given.free(out, "choose another --out")
    # The texts first: where there are none, no folder is left that would be in the way of the next try.
    texts = cards(300_000)
    data = out / "data"
    data.mkdir(parents=True)
    for name, text in zip(("train", "validation", "test"), texts, strict=True):
        (data / f"{name}.txt").write_text(text, encoding="utf-8")
    task = TaskConfig(name="text", data=str(data), options={"batch_rows": 4, "validation_rows": 48, "test_rows": 48})
    config = complete(None, forwards=forwards, checkpoint=str(CHECKPOINT), task=task)
    _screen.err.print(
        "A 4-bit model that learned English prose now learns index cards of Python functions, by forward passes alone.",
        soft_wrap=True,
    )
    _tuning.tune(config, out / "run")
    (record,) = read_all([out / "run"])
    before, after = (
        guesses(model, open_task(task, model, config.seed))
        for model in map(load, (str(CHECKPOINT), str(out / "run" / "checkpoint")))
    )
    _screen.out.print(
        "\nThe model reads a new card and guesses every next piece of it, a word or a part of one. "
        "A dot is a letter of a wrong guess:\n",
        highlight=False,
        soft_wrap=True,
    )
    for line in typical(before, after):
        for who, shown in zip(("the card", "before", "after"), line, strict=True):
            letters = Text(shown)
            if who != "the card":
                letters.highlight_regex(rf"[^{HIDDEN}\s]+", "green")
            _screen.out.print(Text(f"  {who:<8}  ").append_text(letters), soft_wrap=True)
        _screen.out.print()
    kinds = {"of the labels: name, takes, does": bool, "of all other text": lambda label: not label}
    pieces = sum(map(len, before.rows))
    _screen.table(
        f"{pieces:,} pieces of cards that it never saw",
        ["", "before", "after"],
        [
            ["guessed right", *(f"{side.right(lambda _: True):.0%}" for side in (before, after))],
            *([f"  {kind}", *(f"{side.right(own):.0%}" for side in (before, after))] for kind, own in kinds.items()),
            ["as unsure as a choice among", *(f"{side.choices:.0f} pieces" for side in (before, after))],
        ],
    )
    # So short a run of so small a model writes no sentences; the page leaves its samples out.
    page.write([replace(record, samples=None)], out / "report.html")
    _screen.out.print(f"report      {out / 'report.html'}", highlight=False, soft_wrap=True)
