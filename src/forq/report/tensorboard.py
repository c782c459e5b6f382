"""TensorBoard's files, from what a run yields: live, or from the record of a run that is over.

The x-axis is the training step. Scalars: ``train/loss``, ``train/slope`` (root mean square of the directional
derivatives), ``train/stride`` (of the steps), ``train/bad`` (losses that were not finite), ``train/changed`` and
``train/cut`` (shares of the coordinates that moved and that a bound held back), ``validation/…``, and ``forwards``,
the forward passes spent, at which methods are compared. What is not a finite number is left out.
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
    """The writer's class.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"TensorBoard's files need the package tensorboard, found none ({error}); pip install 'forq[tensorboard]'"
        ) from error
    return SummaryWriter


def written(events: Iterable[Line | Scored], folder: Path) -> Iterator[Line | Scored]:
    """Pass a run's events on, and write each into ``folder``.

    A resumed run yields the events of its earlier sittings again, so the files are begun anew: no step stands there
    twice. Only files this function wrote are removed.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    made = require()
    for old in folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
        old.unlink()
    trained, forwards = 0, 0
    # A viewer that is open has the steps of the earlier sitting: purging from 0 on drops them there too.
    with made(str(folder), purge_step=0, flush_secs=10, filename_suffix=_SUFFIX) as writer:
        for event in events:
            numbers: dict[str, float] = {}
            if isinstance(event, Scored):
                numbers = {f"validation/{name}": x for name, x in event.score.numbers().items()}
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
