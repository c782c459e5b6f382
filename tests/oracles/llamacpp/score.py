"""Run in .venv-llamacpp: llama.cpp's logits of GGUF files.

score.py < '{"files": [FILE, …], "ids": [token, …], "exact": true}'   →   a line of JSON for each file, after the word RESULT

Logits go into FILE.npy. Each file has a process of its own, since llama.cpp ends the process where an assertion fails;
a file it refuses, or ends in one, has no loss.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from typing import Any

import numpy as np
from engine import Engine


def score(file: str, ids: list[int], exact: bool) -> None:
    """Write the logits, float32 [tokens, vocabulary]."""
    np.save(f"{file}.npy", Engine(file, exact=exact).logits(ids))


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    # A fork inherits the loaded library, which takes longer to load than a tiny model takes to run.
    forks = multiprocessing.get_context("fork")
    for file in asked["files"]:
        one = forks.Process(target=score, args=(file, asked["ids"], asked["exact"]))
        one.start()
        one.join()
        print("RESULT " + json.dumps({"file": file, "read": one.exitcode == 0}), flush=True)


if __name__ == "__main__":
    main()
