"""What the screen says of scores that are clearly worse than the one before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forq.cli import _screen

if TYPE_CHECKING:
    from forq.runs.metrics import Scored


@dataclass(slots=True)
class Setbacks:
    """The scores of a run so far.

    Attributes:
        rates: the step sizes in force, by setting: those a calibration chose, or the shares of a step ``newton``.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    _first: Scored | None = None
    _row: int = 0

    def sentences(self, scored: Scored) -> list[str]:
        """What a score is worth saying: the first of several setbacks in a row, and that they do not end."""
        from forq.runs.setbacks import PERSISTENT

        first = self._first = self._first or scored
        self._row = self._row + 1 if scored.worse else 0
        if self._row == 1:
            then, now = (_screen.number(scored.score.main, scored.score.value) for scored in (first, scored))
            return [
                f"after step {scored.trained} validation is clearly worse than before the first step: "
                f"{scored.score.main} {then} → {now}"
            ]
        if self._row == PERSISTENT:
            shorter = ", ".join(f"--set {_setting(name)}={rate / 4:.2g}" for name, rate in self.rates.items())
            return [
                f"{PERSISTENT} scores in a row are clearly worse than before the first step. The steps are too long "
                f"for these batches: take shorter steps ({shorter or '--set rule.lr=…'}) or more rows in a batch "
                "(--set task.batch_rows=…). The best weights so far are kept."
            ]
        return []


def _setting(name: str) -> str:
    return f"rule.{name}" if name in ("lr", "newton", "noise") else name
