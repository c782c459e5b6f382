"""Run in .venv-llamacpp: llama.cpp's losses and logits of GGUF files.

score.py < '{"files": [FILE, …], "ids": [token, …]}'   →   a line of JSON for each file, after the word RESULT

Further settings: ``text`` and ``count`` in place of ``ids``, the first tokens of a text; ``exact``,
attention in float32; ``logits``, they go into FILE.npy; ``states``, the last hidden states go there,
and the loss is 0; ``adapters``, LoRA adapters by file. Each file has a process of its own, since
llama.cpp ends the process where an assertion fails; a file that it refuses has no loss.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from engine import Engine


def score(file: str, asked: dict[str, Any], out: Connection) -> None:
    engine = Engine(file, exact=asked.get("exact", False), adapter=asked.get("adapters", {}).get(file))
    ids = asked.get("ids") or engine.tokens(asked["text"])[: asked["count"]]
    if asked.get("states"):
        np.save(f"{file}.npy", engine.states(ids))
        out.send({"loss": 0.0, "ids": ids})
        return
    if asked.get("logits"):
        np.save(f"{file}.npy", engine.logits(ids))
    out.send({"loss": engine.loss(ids), "ids": ids})


def main() -> None:
    asked = json.load(sys.stdin)
    # A fork inherits the loaded library, which takes longer to load than a tiny model takes to run.
    forks = multiprocessing.get_context("fork")
    for file in asked["files"]:
        receive, send = forks.Pipe(duplex=False)
        process = forks.Process(target=score, args=(file, asked, send))
        process.start()
        process.join()
        answer = receive.recv() if receive.poll() else {"loss": None}
        print("RESULT " + json.dumps({"file": file, **answer}), flush=True)


if __name__ == "__main__":
    main()
