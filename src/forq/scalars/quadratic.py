"""The loss along a step's directions up to second order, and the step that it asks for.

In units of the probes, a displacement Σ_k a_k · (probe k) changes the batch's loss by about

    rises · a + ½ aᵀ F a,        F_jk = mean of u_j · u_k,

where u_k is what probe k changes in the model's predictions: the log-likelihoods of outcomes, drawn from or weighted by
the model itself, so that F is the Fisher matrix in the subspace of the directions (Martens 2020, arXiv 1412.1193,
section 9). Of a squared error u_k is what changes in the outputs, and F twice the mean of the products (Gauss–Newton).

Everything here is plain Python in float64 and a fixed order, so that a replay gives the same bits on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forq.scalars.losses import Confirmed, Losses, Own
from forq.scalars.moves import Move

DAMPINGS = (1e-3, 0.1, 1.0, 10.0, math.inf)
"""Dampings that are tried: 0 would be a full Gauss–Newton step, infinity is a step along the gradient."""

Matrix = Sequence[Sequence[float]]


def tried(fixed: float | None) -> tuple[float, ...]:
    """:data:`DAMPINGS`, and a fixed damping after them if it is none of them."""
    return DAMPINGS if fixed is None or fixed in DAMPINGS else (*DAMPINGS, fixed)


@dataclass(frozen=True, slots=True)
class Quadratic:
    """The quadratic model of the loss along a step's directions.

    Attributes:
        rises: first derivative of the loss along each probe, in loss per probe. The curvature that a one-sided
            difference holds, ½F_kk, is subtracted.
        fisher: lower triangle of F, in loss per product of two probes.
        kinds: kind of each direction, by group and law.
        radii: radius of each probe, in leaf units.
        confirmed: for each damping of :func:`tried`, what held-out rows say of the step :func:`damped` of the
            others.
        own: further directions that one row each has measured, a :class:`~forq.scalars.losses.Own` for each probe.
            In a move their terms come first.
        own_radius: radius of their probes, in leaf units.
    """

    rises: tuple[float, ...]
    fisher: tuple[tuple[float, ...], ...]
    kinds: tuple[str, ...]
    radii: tuple[float, ...]
    confirmed: tuple[Confirmed, ...]
    own: tuple[Own, ...] = ()
    own_radius: float = 0.0

    def step(self, damping: float) -> list[float]:
        """The step against the rises that the model asks for, in probes."""
        return [-x for x in damped(self.rises, self.fisher, self.kinds, damping)]

    def bend(self, a: Sequence[float]) -> float:
        """aᵀFa: curvature along a displacement. Half of it is how far the predictions move, in nats."""
        rows = self.fisher
        whole = math.fsum(rows[j][j] * a[j] * a[j] for j in range(len(a)))
        return whole + 2.0 * math.fsum(rows[j][k] * a[j] * a[k] for j in range(len(a)) for k in range(j))


def quadratic(
    losses: Sequence[Losses], whole: Sequence[int], kinds: Sequence[str], radii: Sequence[float]
) -> Quadratic | None:
    """The model from the answers to a step's probes, of which the first is the point itself.

    Args:
        whole: numbers of the directions whose losses are finite, rising.
        kinds, radii: of these directions.

    Returns:
        ``None`` where the oracle measured no curvature.
    """
    here, around = losses[0], losses[1:]
    if here.confirmed is None or not whole:
        return None
    rows = [around[k].fisher or () for k in whole]
    fisher = tuple(tuple(row[k] for k in whole[: place + 1]) for place, row in enumerate(rows))
    rises = tuple(around[k].mean - here.mean - 0.5 * fisher[place][place] for place, k in enumerate(whole))
    return Quadratic(rises, fisher, tuple(kinds), tuple(radii), here.confirmed)


def kind_of(probe: Move) -> str:
    """Group and law of a probe's direction: directions of one kind are equally steep on average."""
    return f"{probe.terms[0].group} {probe.terms[0].noise}" if probe.terms else ""


def scales(fisher: Matrix, kinds: Sequence[str]) -> list[float]:
    """The mean of F_kk over the directions of each direction's kind."""
    by_kind = {
        kind: [row[place] for place, row in enumerate(fisher) if kinds[place] == kind] for kind in dict.fromkeys(kinds)
    }
    mean = {kind: math.fsum(values) / len(values) for kind, values in by_kind.items()}
    return [mean[kind] for kind in kinds]


def damped(rises: Sequence[float], fisher: Matrix, kinds: Sequence[str], damping: float) -> list[float]:
    """(1 + λ)·(F + λD)⁻¹ · rises, with D of :func:`scales` and λ the damping; D⁻¹ · rises where λ is infinite.

    A direction along which nothing changes gets 0.
    """
    scale = scales(fisher, kinds)
    live = [k for k, x in enumerate(scale) if x > 0.0]
    out = [0.0] * len(rises)
    if math.isinf(damping):
        for k in live:
            out[k] = rises[k] / scale[k]
        return out
    matrix = [
        [fisher[j][k] + (damping * scale[j] if j == k else 0.0) for k in live[: place + 1]]
        for place, j in enumerate(live)
    ]
    for k, x in zip(live, solved(matrix, [rises[k] for k in live]), strict=True):
        out[k] = (1.0 + damping) * x
    return out


def solved(matrix: Matrix, right: Sequence[float]) -> list[float]:
    """x with ``matrix`` · x = ``right``, by Cholesky's factors of a lower triangle.

    A pivot that rounding makes smaller than 1e-12 of its diagonal is taken to be that.
    """
    size = len(right)
    low: list[list[float]] = []
    for j in range(size):
        row: list[float] = []
        for k in range(j):
            row.append((matrix[j][k] - sum(row[i] * low[k][i] for i in range(k))) / low[k][k])
        pivot = matrix[j][j] - sum(x * x for x in row)
        row.append(math.sqrt(max(pivot, 1e-12 * matrix[j][j])))
        low.append(row)
    y: list[float] = []
    for j in range(size):
        y.append((right[j] - sum(low[j][i] * y[i] for i in range(j))) / low[j][j])
    x = [0.0] * size
    for j in reversed(range(size)):
        x[j] = (y[j] - sum(low[i][j] * x[i] for i in range(j + 1, size))) / low[j][j]
    return x
