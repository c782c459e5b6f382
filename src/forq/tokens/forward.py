"""Which rows of a step's batch are in the forward pass in progress; layers that treat rows apart ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from forq.errors import RunError

_ROWS: ContextVar[tuple[int, ...] | None] = ContextVar("rows in the forward pass", default=None)


@contextmanager
def forward_of(rows: Sequence[int]) -> Iterator[None]:
    """Inside the block a forward pass has these rows of the batch, one behind the other."""
    before = _ROWS.set(tuple(rows))
    try:
        yield
    finally:
        _ROWS.reset(before)


def rows_in_forward() -> tuple[int, ...]:
    """Numbers of the batch's rows in the forward pass in progress, in order.

    Raises:
        RunError: nobody named them: the task does not pass its rows to the model one by one.
    """
    rows = _ROWS.get()
    if rows is None:
        raise RunError(
            "estimator.name=by_row: expected a task whose rows a model reads one by one, found another; use one_sided"
        )
    return rows
