"""Black-box attacks on whole pixel levels, to measure how robust your own models are.

Each file of :mod:`forq.attacks.methods` registers one method. It defines ``Method``, a frozen
dataclass of settings. ``Method.search(task)`` is a generator: it yields images to score, receives
their losses, and runs until it is closed. A method never sees the victim. The engine
(:mod:`forq.attacks.queries`) counts the queries and decides whether an attack succeeded.
"""
