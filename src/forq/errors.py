"""The tree of errors: everything forq refuses.

ForqError
├── ConfigError      a setting is impossible or unknown
├── DataError        a row, file or label cannot be used
├── FormatError      a checkpoint is broken, contradictory or of no known format
├── JournalError     a journal is torn, edited, of another base or of an unknown law
└── RunError         a run cannot go on: it moves nothing, or its losses are not numbers
"""

from __future__ import annotations


class ForqError(Exception):
    """Anything forq refuses; the message says what was expected, what was found, and what to do."""


class ConfigError(ForqError):
    """A setting is impossible or unknown."""


class DataError(ForqError):
    """A row, a file or a label cannot be used."""


class FormatError(ForqError):
    """A checkpoint is broken, contradicts itself, or is of no known format."""


class JournalError(ForqError):
    """A journal is torn, edited, of another base, or of an unknown law."""


class RunError(ForqError):
    """A run cannot go on: it moves nothing, or its losses are not numbers."""
