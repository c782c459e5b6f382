"""Kill and stop random ranks of runs under torchrun; each run must end in the bytes of an undisturbed process.

    python -m experiments.ranks_chaos CHECKPOINT TEXT --events 30 --out results/ranks-chaos.jsonl

A run has some events. Each waits for a random line of the journal and then strikes a random rank, rank 0 among them: it
is killed (SIGKILL), stopped for good (SIGSTOP), or stopped and woken after a while, as a laptop that sleeps. torchrun
starts the ranks again, and they go on from the journal. Rows are appended; runs on record are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = ("kill", "stop", "sleep")
TIMEOUT = 10.0
"""``--rank-timeout`` of the runs, in seconds."""

LIMIT = 1800.0
"""Seconds after which a run counts as hung."""

SETTINGS = ("--set", "task.max_length=32", "--set", "task.validation_rows=16", "--set", "task.test_rows=16")


@dataclass(frozen=True)
class Struck:
    """A rank that was struck, once the journal had so many lines."""

    kind: str
    rank: int
    line: int


def words(base: Path, text: Path, out: Path, steps: int) -> list[str]:
    begin = ["-m", "forq", "tune", str(base), "--task", "text", "--data", str(text), "--out", str(out)]
    return [*begin, "--steps", str(steps), "--eval-every", str(max(1, steps // 4)), *SETTINGS]


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def undisturbed(base: Path, text: Path, out: Path, steps: int) -> None:
    """One process, without a launcher."""
    done = subprocess.run(
        [sys.executable, *words(base, text, out, steps)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def disturbed(
    base: Path, text: Path, out: Path, steps: int, ranks: int, kinds: Sequence[str], seed: int
) -> list[Struck]:
    """A run of several ranks in which some are struck; it must end in good order.

    Raises:
        AssertionError: torchrun gave up, or the run hangs.
    """
    draw = random.Random(seed)
    lines = sorted(draw.sample(range(1, steps - 1), len(kinds)))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "--max-restarts", "100"]
    own = ["--resume", "--rank-timeout", str(TIMEOUT)]
    with (out.parent / f"{out.name}.txt").open("w") as screen:
        run = subprocess.Popen(
            [sys.executable, *launcher, *words(base, text, out, steps), *own],
            env=environment(),
            stdout=screen,
            stderr=screen,
        )
        until = time.monotonic() + LIMIT
        struck = []
        try:
            for line, kind in zip(lines, kinds, strict=True):
                if (found := _strike(run, out, line, kind, draw, until)) is not None:
                    struck.append(found)
            code = run.wait(max(1.0, until - time.monotonic()))
        finally:
            if run.poll() is None:
                run.kill()
                for pid in _workers(run.pid).values():
                    os.kill(pid, signal.SIGKILL)
    assert code == 0, (out.parent / f"{out.name}.txt").read_text()[-4000:]
    return struck


def same(one: Path, other: Path) -> bool:
    """Whether two runs have the same journal and the same saved files, byte for byte."""
    names = ["journal.jsonl", *(f"checkpoint/{path.name}" for path in (one / "checkpoint").iterdir())]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def _strike(
    run: subprocess.Popen[bytes], out: Path, line: int, kind: str, draw: random.Random, until: float
) -> Struck | None:
    """Wait for a line of the journal, then strike; None if the run ended before."""
    while run.poll() is None and time.monotonic() < until:
        workers = _workers(run.pid)
        if _lines(out) > line and workers:
            rank = draw.choice(sorted(workers))
            try:
                os.kill(workers[rank], signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            except ProcessLookupError:
                continue
            if kind == "sleep":
                time.sleep(draw.uniform(0.5, 3.0) * TIMEOUT)
                for pid in _workers(run.pid).values():
                    os.kill(pid, signal.SIGCONT)
            return Struck(kind, rank, line)
        time.sleep(0.02)
    return None


def _lines(out: Path) -> int:
    path = out / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _workers(parent: int) -> dict[int, int]:
    """Process of each rank that torchrun runs now."""
    return dict(_ranks_of(parent))


def _ranks_of(parent: int) -> Iterator[tuple[int, int]]:
    for path in Path("/proc").iterdir():
        try:
            if not path.name.isdecimal() or int((path / "stat").read_text().rpartition(")")[2].split()[1]) != parent:
                continue
            values = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = next((value[5:] for value in values if value.startswith(b"RANK=")), None)
        if rank is not None:
            yield int(rank), int(path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("text", type=Path)
    for name, value in (("--events", 30), ("--each", 5), ("--steps", 100)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    done = [json.loads(row) for row in asked.out.read_text().splitlines()] if asked.out.exists() else []
    with tempfile.TemporaryDirectory() as work:
        one = Path(work) / "one"
        undisturbed(asked.base, asked.text, one, asked.steps)
        for number in range(len(done), asked.events // asked.each):
            draw = random.Random(number)
            ranks, kinds = draw.choice((2, 3, 4)), [draw.choice(KINDS) for _ in range(asked.each)]
            began, out = time.perf_counter(), Path(work) / f"run {number}"
            struck = disturbed(asked.base, asked.text, out, asked.steps, ranks, kinds, number)
            row = {
                "run": number,
                "ranks": ranks,
                "steps": asked.steps,
                "struck": [[event.kind, event.rank, event.line] for event in struck],
                "same_bytes": same(one, out),
                "seconds": round(time.perf_counter() - began, 1),
                "command": f"python -m experiments.ranks_chaos BASE TEXT --events {asked.events} --out {asked.out}",
            }
            with asked.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row)


if __name__ == "__main__":
    main()
