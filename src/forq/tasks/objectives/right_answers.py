"""The right answers of a row as the shipped rewards take them: a list of texts.

The shipped rewards go through ``row["answers"]`` one by one. Rows of one's own may hold a single text there, or SQuAD's
mapping, whose letters and keys are no answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


def listed(facts: str) -> str:
    """A row's facts, a JSON object, with ``answers`` as a list.

    A text is one answer, and a mapping means its ``text``. Facts without ``answers``, or with a list of texts, stay
    as they are, to the byte.
    """
    if '"answers"' not in facts:
        return facts
    row = json.loads(facts)
    answers = row.get("answers")
    found = _listed(answers) if answers else answers
    return facts if found == answers else json.dumps({**row, "answers": found}, sort_keys=True)


def _listed(answers: object) -> object:
    texts = answers.get("text") if isinstance(answers, Mapping) else answers
    if isinstance(texts, str):
        return [texts] if texts.strip() else []
    if not isinstance(texts, list):
        return texts
    return [answer["text"] if isinstance(answer, Mapping) and "text" in answer else answer for answer in texts]
