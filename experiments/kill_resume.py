"""Kill a run twenty times with SIGKILL, resume it each time, and compare with the run nobody disturbed.

    python experiments/kill_resume.py CKPT --data FILE --out FOLDER

Prints one JSON object: when each kill struck (lines in the journal), and whether the last digest, the journal's
losses and every byte of the checkpoint are those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from forq.runs import journal


def command(args: argparse.Namespace, out: Path, resume: bool) -> list[str]:
    base = [sys.executable, "-m", "forq", "tune", args.checkpoint, "--out", str(out), "--json"]
    if resume:
        return [*base, "--resume"]
    limits = ["--set", "task.validation_rows=32", "--set", "task.test_rows=32"]
    return [*base, "--task", "text", "--data", args.data, "--steps", str(args.steps), "--seed", "7", *limits]


def lines(out: Path) -> int:
    path = out / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds of work between two kills, at most")
    args = parser.parse_args()
    whole, killed = args.out / "whole", args.out / "killed"
    subprocess.run(command(args, whole, resume=False), check=True, capture_output=True)

    draw, struck = random.Random(0), []
    while len(struck) < args.kills:
        start = lines(killed)
        process = subprocess.Popen(
            command(args, killed, resume=start > 0), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Wait for the first new line now and then; other kills may strike while the tape still plays.
        while process.poll() is None and lines(killed) <= start and draw.random() > 0.002:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, args.longest))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        struck.append(lines(killed))
    subprocess.run(command(args, killed, resume=True), check=True, capture_output=True)
    one, two = journal.read(whole / "journal.jsonl"), journal.read(killed / "journal.jsonl")
    print(
        json.dumps(
            {
                "kills": len(struck),
                "journal_lines_at_each_kill": struck,
                "lines": len(two.lines),
                "same_losses": one.lines == two.lines,
                "same_last_digest": one.lines[-1].digest == two.lines[-1].digest,
                "same_checkpoint_bytes": contents(whole / "checkpoint") == contents(killed / "checkpoint"),
            }
        )
    )


if __name__ == "__main__":
    main()
