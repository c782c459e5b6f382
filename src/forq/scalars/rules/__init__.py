"""Rules: from a gradient estimate to the step that is taken. They chain. One idea, one file.

A file has a frozen dataclass with ``init`` and ``update`` (:class:`forq.scalars.protocols.Rule`), a ``registration``
(:class:`forq.scalars.chain.Registration`) and ``example()``, an instance for the contract tests.
"""
