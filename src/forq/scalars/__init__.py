"""Everything a run decides: seeded directions, estimators, rules, calibrations. Imports neither numpy nor torch.

A zeroth-order run decides nothing but scalars. A probe, a gradient estimate and an update are the same kind of
value, a sum of seeded directions (:class:`forq.scalars.moves.Move`); only :mod:`forq.coordinates.space` turns one
into numbers.
"""
