"""Let llama.cpp answer prompts with a GGUF file, as a server would: with the file's own chat template, greedily.

Run it where the package xllamacpp is installed; it needs nothing else. One JSON object a line is
written: the question, the answer, and the answer that the desk itself gave.

    python answers.py FILE.gguf rows/test.jsonl > answers.jsonl
    python answers.py FILE.gguf rows/test.jsonl rows/train.jsonl 4 > answers.jsonl    # after four examples
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import xllamacpp

TOKENS = 96
"""Most tokens of an answer; a ticket has about thirty."""


def served(path: Path, threads: int = 1) -> xllamacpp.Server:
    """A server in this process for one file."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel = 512, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.warmup = False
    return xllamacpp.Server(settings)


def answer(server: xllamacpp.Server, messages: list[dict[str, str]]) -> str:
    """The likeliest answer to a conversation."""
    asked = {"messages": messages, "temperature": 0.0, "max_tokens": TOKENS, "cache_prompt": False}
    reply: dict[str, Any] = server.handle_chat_completions(asked)
    text: str = reply["choices"][0]["message"]["content"]
    return text


def main(model: str, rows: str, examples: str = "", count: str = "0") -> None:
    """Write an answer to each row's question; so many examples stand before it as earlier turns."""
    server = served(Path(model))
    lines = Path(examples).read_text(encoding="utf-8").splitlines()[: int(count)] if examples else []
    shown = [message for line in lines for message in json.loads(line)["messages"][-2:]]
    for line in Path(rows).read_text(encoding="utf-8").splitlines():
        *asked, own = json.loads(line)["messages"]
        asked[-1:] = [*shown, asked[-1]]
        found = {"question": asked[-1]["content"], "answer": answer(server, asked), "desk": own["content"]}
        print(json.dumps(found, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
