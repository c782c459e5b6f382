"""Run in .venv-llamacpp: what llama.cpp makes of lines of text, one vocabulary after another.

tokens.py OUT < {"lines": […], "cases": {NAME: {"vocabulary": …, "changes": {…}, "every": …}}}

A case writes OUT/NAME.gguf and OUT/NAME.json: the ids of every line without and of every tenth line
with the tokens that frame a text, texts of ids, the flags; ``refused`` where llama.cpp does not load
the file. A vocabulary is a function of ``vocabularies``, a version of Mistral's, or a file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import vocabularies
from engine import Engine


@cache
def vocabulary(name: str) -> vocabularies.Vocabulary:
    """A vocabulary by its name."""
    if name.startswith("mistral-"):
        return vocabularies.mistral(name.removeprefix("mistral-"))
    made: vocabularies.Vocabulary = getattr(vocabularies, name)()
    return made


def written(out: Path, name: str, case: dict[str, Any]) -> Path:
    """The case's file; one that is there already is taken as it is."""
    if case["vocabulary"].endswith(".gguf"):
        return Path(case["vocabulary"])
    base = vocabulary(case["vocabulary"])
    tokens, types = list(base.tokens), list(base.types)
    for place, (text, kind) in case.get("tokens", {}).items():
        tokens[int(place)], types[int(place)] = text, kind
    scores = None if base.scores is None else [*base.scores, *[-1000.0] * len(case.get("added", ()))]
    for text, kind in case.get("added", ()):
        tokens.append(text)
        types.append(kind)
    return replace(base, tokens=tokens, types=types, scores=scores).write(
        out / f"{name}.gguf", **case.get("changes", {})
    )


def main() -> None:
    out, asked = Path(sys.argv[1]), json.load(sys.stdin)
    for name, case in asked["cases"].items():
        path = written(out, name, case)
        try:
            engine = Engine(path, vocabulary=True)
        except ValueError:
            (out / f"{name}.json").write_text(json.dumps({"refused": True}))
            continue
        lines = asked["lines"][:: case.get("every", 1)]
        bare = [engine.tokens(line, special=False) for line in lines]
        framed = [engine.tokens(line) for line in lines[::10]]
        answer = {"bare": bare, "framed": framed, "texts": [engine.text(ids) for ids in bare], "flags": engine.flags()}
        (out / f"{name}.json").write_text(json.dumps(answer | {"file": str(path), "size": engine.size}))


if __name__ == "__main__":
    main()
