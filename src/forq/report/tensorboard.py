"""TensorBoard files, written while a run is going or from the record of an earlier run.

The x-axis is the training step. The scalars are:

- ``train/loss``;
- ``train/slope``, ``train/stride``: root mean squares of the directional derivatives and the steps;
- ``train/bad``: losses that were not finite;
- ``train/changed``, ``train/cut``, ``train/lost``: shares of the coordinates that moved, were cut
  at a bound, and were rounded away;
- ``validation/…``: validation metrics;
- ``watch/NAME/…``: the same on watched data sets, and ``kl``, the divergence from the base;
- ``forwards``: forward passes spent; compare methods at equal values.

Values that are not finite are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from forq.errors import ConfigError
from forq.runs.journal import Line
from forq.runs.metrics import Scored

_SUFFIX = ".forq"


def require() -> Any:
    """The class ``SummaryWriter`` of TensorBoard.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"--tensorboard: expected the package tensorboard, found none ({error}); pip install 'forq[tensorboard]'"
        ) from error
    return SummaryWriter


def written(events: Iterable[Line | Scored], folder: Path) -> Iterator[Line | Scored]:
    """Write each event of a run into ``folder``, and yield it.

    A resumed run yields its earlier events again, so old event files are removed first and no step
    appears twice. Only files written by this function are removed.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    writer_class = require()
    for old in folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
        old.unlink()
    trained, forwards = 0, 0
    # An open viewer still has the earlier steps; purge_step=0 removes them there too.
    with writer_class(str(folder), purge_step=0, flush_secs=10, filename_suffix=_SUFFIX) as writer:
        for event in events:
            numbers: dict[str, float] = {}
            if isinstance(event, Scored):
                numbers = {f"validation/{name}": x for name, x in event.score.numbers().items()}
                for watch, found in event.watch.items():
                    numbers |= {f"watch/{watch}/{name}": x for name, x in found.numbers().items()}
            else:
                forwards += event.forwards
                trained += event.kind == "train"
                numbers = _numbers(event, forwards) if event.kind == "train" else {}
            for name, number in numbers.items():
                if math.isfinite(number):
                    writer.add_scalar(name, number, trained)
            yield event


def _numbers(line: Line, forwards: int) -> dict[str, float]:
    numbers = {f"train/{name}": number for name, number in line.notes.items()}
    if line.moved.total:
        counts = {"changed": line.moved.changed, "cut": line.moved.cut, "lost": line.moved.rounded_away}
        numbers |= {f"train/{name}": count / line.moved.total for name, count in counts.items()}
    return {**numbers, "forwards": float(forwards)}
