"""Rewards of one's own, for ``--reward examples/rewards.py:NAME``: a number for an answer, the higher the better."""

import re


def grounded(prompt: str, text: str, row: dict[str, object]) -> float:
    """The share of the answer's words that stand in the prompt; 0 for an answer without words."""
    said, known = words(text), set(words(prompt))
    return sum(word in known for word in said) / len(said) if said else 0.0


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
