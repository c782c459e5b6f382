"""An oracle that plays a journal: replay and resume are the same run with a tape for an oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forq.errors import JournalError
from forq.runs.journal import Line
from forq.scalars.losses import Losses
from forq.scalars.moves import Move
from forq.scalars.protocols import Oracle


@dataclass(frozen=True, slots=True)
class Tape:
    """Answers from recorded lines; where they end, another oracle may go on.

    Raises:
        JournalError: a step asks for another number of losses than was recorded, or for more than there is.
    """

    lines: Sequence[Line]
    then: Oracle | None = None

    def __call__(self, step: int, probes: Sequence[Move]) -> Sequence[Losses]:
        if step < len(self.lines):
            losses = self.lines[step].losses
            if len(losses) != len(probes):
                raise JournalError(
                    f"step {step}: the journal holds {len(losses)} losses where this method asks for {len(probes)}; "
                    "the settings in the header are not those the journal was written with"
                )
            return losses
        if self.then is None:
            raise JournalError(f"the journal ends before step {step}")
        return self.then(step, probes)
