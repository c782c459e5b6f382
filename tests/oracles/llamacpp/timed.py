"""Run in .venv-llamacpp: processor seconds of llama.cpp for logits of all tokens, one thread.

timed.py FILE, then a line with a number of tokens for each measurement; a line with the seconds answers it. Making the
context is not counted.
"""

from __future__ import annotations

import sys
import time

from engine import Engine


def main() -> None:
    engine = Engine(sys.argv[1])
    for line in sys.stdin:
        ids = [place * 37 % engine.size for place in range(int(line))]
        clock = Clock(engine.lib)
        engine.lib = clock
        engine.logits(ids)
        engine.lib = clock.lib
        print(clock.seconds, flush=True)


class Clock:
    """llama.cpp's library with its ``llama_decode`` timed."""

    def __init__(self, lib: object) -> None:
        self.lib, self.seconds = lib, 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self.lib, name)

    def llama_decode(self, context: object, batch: object) -> int:
        began = time.process_time()
        status: int = self.lib.llama_decode(context, batch)  # type: ignore[attr-defined]
        self.seconds += time.process_time() - began
        return status


if __name__ == "__main__":
    main()
