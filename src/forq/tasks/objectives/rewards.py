"""Rewards: functions of (prompt, text, row) that a run can have for its objective, differentiable or not.

A reward is any Python function. ``prompt`` is what the model was given, ``text`` what it answered: the likeliest option
of a task that chooses, the likeliest continuation of one that completes. ``row`` holds ``answer``, the right one, and
``answers`` where there are several; of data of one's own also the row's other fields.
"""

from __future__ import annotations

import hashlib
import inspect
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from forq.errors import ConfigError
from forq.plugins import functions as userfunctions

Reward = Callable[[str, str, Mapping[str, object]], float]


def accuracy(prompt: str, text: str, row: Mapping[str, object]) -> float:
    """1 where the answer is the right one, spaces around it aside, else 0."""
    return float(text.strip() == str(row["answer"]).strip())


def f1(prompt: str, text: str, row: Mapping[str, object]) -> float:
    """Harmonic mean of precision and recall of an answer's words, of the best right answer (SQuAD).

    Words as SQuAD counts them: lower-cased, without punctuation and articles. Two answers without a word agree.
    """
    found = Counter(_words(text))
    return max(_overlap(found, Counter(_words(right))) for right in _right(row))


def exact_match(prompt: str, text: str, row: Mapping[str, object]) -> float:
    """1 where the words are those of a right answer in their order, else 0; words as in :func:`f1`."""
    return float(any(_words(text) == _words(right) for right in _right(row)))


SHIPPED = {"accuracy": accuracy, "f1": f1, "exact_match": exact_match}


def resolve(name: str) -> tuple[Reward, str]:
    """The function a name means, and a digest of the code it stands in.

    Args:
        name: ``accuracy``, ``f1``, ``module:function`` or ``path/to/file.py:function``; modules are looked for in the
            current folder too. The code is run: it is the user's own.

    Raises:
        ConfigError: it cannot be imported, or is no function.
    """
    if name in SHIPPED:
        return SHIPPED[name], hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()
    if ":" not in name:
        raise ConfigError(f"reward: expected {', '.join(SHIPPED)}, module:function or file.py:function, found {name!r}")
    return userfunctions.resolve(name, "reward")


def _right(row: Mapping[str, object]) -> list[str]:
    answers = row.get("answers")
    return [str(answer) for answer in answers] if answers and isinstance(answers, Iterable) else [str(row["answer"])]


def _words(text: str) -> list[str]:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def _overlap(found: Counter[str], wanted: Counter[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    return 2.0 * (found & wanted).total() / (found.total() + wanted.total())
