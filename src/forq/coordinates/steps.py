"""From a move to what it adds to one leaf: directions summed, linked, in the leaf's units, rounded on a lattice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forq.coordinates.arithmetic import linked, rounded, rounded_at
from forq.coordinates.directions import LeafDirections
from forq.coordinates.domain import Domain
from forq.coordinates.leaf import SparseCodes
from forq.errors import ConfigError, RunError
from forq.noise.law import law
from forq.scalars.moves import Move, Term


@dataclass(frozen=True, slots=True)
class Step:
    """What a move adds to a range of coordinates.

    Attributes:
        x: fresh; float32, or int32 where nothing in the move is a fraction.
        rounded_away: coordinates that should have moved by part of a cell of a lattice and were rounded to stay.
    """

    x: Tensor
    rounded_away: int = 0


def float_step(name: str, directions: LeafDirections, domain: Domain, move: Move, start: int, stop: int) -> Step:
    """p = unit · link(Σ w·z) for coordinates ``start … stop − 1``, float32; on a lattice rounded to whole cells.

    Args:
        name: of the leaf, for errors.

    Raises:
        RunError: no term of the move touches the leaf.
        ConfigError: the move feeds rounding back, and the leaf is no lattice.
    """
    total = directions.sum(move.terms, start, stop)
    if total is None:
        raise RunError(f"{name}: a move that does not touch this leaf was applied to it")
    if move.link.kind == "feedback":
        return _feedback_step(name, directions, domain, move, total, start)
    total = linked(total, move.link, directions.key, start)
    total = total.mul_(_unit(domain, start, stop))
    if not domain.lattice:
        return Step(total)
    wanted = int(torch.count_nonzero(total))
    cells = rounded(total, move.terms[0].seed, directions.key, start)
    return Step(cells, max(wanted - int(torch.count_nonzero(cells)), 0))


def integer_step(directions: LeafDirections, move: Move, start: int, stop: int) -> Step:
    """The numbers of :func:`float_step` for a move that :func:`is_integer`: int32 throughout."""
    total = directions.integer_sum(move.terms, start, stop)
    return Step(total.sign_().mul_(int(move.link.size)) if move.link.kind == "sign" else total)


def sparse_step(directions: LeafDirections, domain: Domain, move: Move, term: Term, drawn: SparseCodes) -> Step:
    """The numbers of :func:`float_step` or :func:`integer_step` at the places where a single direction is not 0.

    Args:
        move: :func:`is_sparse`; its only term that touches the leaf is ``term``.
        drawn: the direction.
    """
    if is_integer(directions, domain, move):
        cells = drawn.x * int(term.weight)
        return Step(cells.sign_().mul_(int(move.link.size)) if move.link.kind == "sign" else cells)
    total = linked(drawn.x * term.weight, move.link, directions.key, 0).mul_(_unit(domain, 0, 0))
    wanted = int(torch.count_nonzero(total))
    cells = rounded_at(total, term.seed, directions.key, drawn.places)
    return Step(cells.to(torch.int32), wanted - int(torch.count_nonzero(cells)))


def is_sparse(directions: LeafDirections, domain: Domain, move: Move) -> bool:
    """Whether a move leaves nearly all integers where they are: it is a single direction, of a law that does."""
    mine = directions.mine(move.terms)
    if len(mine) != 1 or law(mine[0].noise).sparse is None or move.link.kind not in ("identity", "sign"):
        return False
    return is_integer(directions, domain, move) or (domain.lattice and isinstance(domain.unit, float))


def is_integer(directions: LeafDirections, domain: Domain, move: Move) -> bool:
    """Whether a move of integers takes no fraction anywhere, so that int32 gives the same numbers as float32."""
    size = move.link.size if move.link.kind == "sign" else 1.0
    integer = (
        move.link.kind in ("identity", "sign")
        and all(term.weight.is_integer() and law(term.noise).integer for term in directions.mine(move.terms))
        and float(size).is_integer()
    )
    return integer and isinstance(domain.unit, float) and domain.unit == 1.0


def _feedback_step(
    name: str, directions: LeafDirections, domain: Domain, move: Move, total: Tensor, start: int
) -> Step:
    """round(unit·s + γ·e), with e derived again from zero over the earlier moves: no residual is stored."""
    if not domain.lattice:
        raise ConfigError(f"{name}: rule.feedback carries what rounding to whole cells leaves; take integers")
    stop = start + len(total)
    unit, residual = _unit(domain, start, stop), torch.zeros_like(total)
    for terms in move.link.past:
        wanted = directions.sum(terms, start, stop)
        residual = residual.mul_(move.link.size)
        residual = residual if wanted is None else residual.add_(wanted.mul_(unit))
        residual = residual.sub_(residual.round())
    total = total.mul_(unit).add_(residual.mul_(move.link.size))
    cells = total.round()
    return Step(cells, int(torch.count_nonzero(total)) - int(torch.count_nonzero(cells)))


def _unit(domain: Domain, start: int, stop: int) -> Tensor | float:
    unit = domain.unit
    return unit.view(-1)[start:stop].float() if isinstance(unit, Tensor) else unit
