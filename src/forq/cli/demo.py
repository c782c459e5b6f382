"""forq demo: the main job on the model forq ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="The run's folder; new.")] = Path("demo-run"),
) -> None:
    """Tune the shipped 4-bit model with forward passes only; before and after."""
    raise NotImplementedError
