"""Several ranks in a second: one process imports everything, and every rank is a fork of it.

    python -m tests.ranks SPECIFICATION.json

A specification is a list of launches, one after the other; a launch is a list of ranks; a rank is a mapping with
``words`` (the command line) or ``python`` (arguments of forq.tune_on_ranks), and if need be ``environment``, ``out`` (a
file for its output) and ``spoil`` (a name in :data:`SPOILS`). The exit codes of all launches are printed as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

LIMIT = 240
"""Seconds after which a launch is killed."""

PARENT = (
    "forq.cli._tuning",
    "forq.models.load",
    "forq.report.tensorboard",
    "forq.runs.outcome",
    "forq.runs.ranks.session",
    "forq.tasks.text",
    "onnxruntime",
    "rich.progress",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.tokenization_utils_tokenizers",
)
"""What every rank would import, and threads do not start with."""


def run(launches: Sequence[Sequence[Mapping[str, Any]]], folder: Path) -> list[list[int]]:
    """Run launches in a process of their own; the exit code of every rank."""
    path = folder / "launches.json"
    path.write_text(json.dumps(launches))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ranks", str(path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    codes: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes


def ranks(count: int, *words: object, **more: Any) -> list[dict[str, Any]]:
    """A launch of so many ranks with the same command line."""
    return [{"words": [*map(str, words)], **more} for _ in range(count)]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _nan() -> None:
    """Losses of this rank are not numbers."""
    from dataclasses import replace

    from forq.tasks.objectives import losses

    real = losses.token_predictions

    def broken(*given: Any) -> Any:
        return replace(real(*given), mean=float("nan"))

    losses.token_predictions = broken


def _flip() -> None:
    """One bit of this rank's masters changes after the fifth step."""
    from forq.coordinates.space import Space

    real, calls = Space.apply, [0]

    def apply(self: Space, move: Any) -> Any:
        moved = real(self, move)
        calls[0] += 1
        if calls[0] == 5:
            import torch

            next(iter(self.masters().values())).view(-1)[:1].view(torch.int32).bitwise_xor_(1)
        return moved

    Space.apply = apply  # type: ignore[method-assign]


def _stop() -> None:
    """This rank stops itself in its third step, as a machine that sleeps."""
    _in_step(3, signal.SIGSTOP)


def _die() -> None:
    """This rank is killed in its third step."""
    _in_step(3, signal.SIGKILL)


def _interrupt() -> None:
    """Ctrl-C in the third step."""
    _in_step(3, signal.SIGINT)


def _in_step(number: int, what: signal.Signals) -> None:
    from forq.coordinates.space import Space

    real, calls = Space.checksum, [0]

    def checksum(self: Space) -> int:
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), what)
        return real(self)

    Space.checksum = checksum  # type: ignore[method-assign]


SPOILS: dict[str, Callable[[], None]] = {
    "nan": _nan,
    "flip": _flip,
    "stop": _stop,
    "die": _die,
    "interrupt": _interrupt,
}


def _rank(rank: int, size: int, port: int, of: Mapping[str, Any]) -> None:
    """Become a rank; this is a fork."""
    if size > 1:
        named = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update(named)
    os.environ.update(of.get("environment", {}))
    if (out := of.get("out")) is not None:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
    if (spoil := of.get("spoil")) is not None:
        SPOILS[spoil]()
    code = 0
    try:
        if "python" in of:
            import forq

            forq.tune_on_ranks(**of["python"])
        else:
            from forq.cli import main

            sys.argv = ["forq", *of["words"]]
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _launch(launch: Sequence[Mapping[str, Any]]) -> list[int]:
    port, children = free_port(), []
    for rank, of in enumerate(launch):
        pid = os.fork()
        if pid == 0:
            _rank(rank, len(launch), port, of)
        children.append(pid)
    until, codes = time.monotonic() + LIMIT, dict[int, int]()
    while len(codes) < len(children):
        for pid in children:
            if pid not in codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        left = [pid for pid in children if pid not in codes]
        # A rank that stopped itself stays; the others have ended on their own by then.
        if left and (time.monotonic() > until or all(_stopped(pid) for pid in left)):
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[pid] for pid in children]


def _stopped(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def main() -> None:
    for name in PARENT:
        importlib.import_module(name)

    launches = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps([_launch(launch) for launch in launches]))


if __name__ == "__main__":
    main()
