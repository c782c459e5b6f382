"""Black-box attacks on the integer pixel lattice, to measure how robust one's own models are.

One method, one file; the file is the registration. It defines ``Method``, a frozen dataclass of settings whose
``search(task)`` is a generator: it yields the images it wants scored, is sent their losses, and goes on until it is
closed. It never sees the victim, counts nothing and decides no success: :mod:`forq.attacks.queries` does.
"""
