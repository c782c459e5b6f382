"""Damaged checkpoints of every format: each is refused by a FormatError or loads; none crashes, hangs or takes memory.

    python -m tests.fuzz gptq awq pipeline … --count 10000 --seed 1      # all formats, and pipelines, by default

One process does all of it under a limit on its address space and with an alarm for every checkpoint, so that an
allocation or a loop a damaged count asks for ends the process, and the caller sees it. What is read are headers, the
quantized layers, and every tenth time the whole model with a forward.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.models.layout import layout
from forq.models.load import load
from tests import fixtures, tiny_pipeline
from tests.fixtures import gguf_architectures

LIMIT_BYTES, LIMIT_S = 1 << 30, 20
_TEXT = (".json", ".txt", ".jinja")
# Sizes and counts stand near the beginning of a file, in most containers; a ZIP's at its end.
_NEAR = 4096
_TYPES = (gguf_architectures.Q.Q8_0, gguf_architectures.Q.F16, gguf_architectures.Q.Q4_0)


ARCHITECTURES = ("gemma3", "gpt2", "falcon, two norms", "stablelm, parallel", "bert")
"""GGUF architectures that are damaged too: windows, turned matrices, orders of rows, a tensor a row, an encoder."""
NAMES = (*fixtures.FORMATS, "pipeline", *(f"gguf:{name}" for name in ARCHITECTURES), "gguf:split")
"""What is damaged: examples of every format, a pipeline of diffusers with its transformer in GGUF, and files of GGUF
architectures, the last in several parts."""


def example(name: str, folder: Path, **changes: Any) -> Path:
    """The checkpoint that is damaged, in ``folder``."""
    if name.startswith("gguf:"):
        split = name == "gguf:split"
        row = "qwen3" if split else name.removeprefix("gguf:")
        model = gguf_architectures.made(row, width=32, layers=1)
        return gguf_architectures.write(folder / "tiny.gguf", row, model, _TYPES, split=5 if split else 0)
    if name != "pipeline":
        return fixtures.example(name, folder, **changes)
    return tiny_pipeline.in_gguf(tiny_pipeline.transformer(folder.with_name(f"{folder.name}-floats")), folder)


def answered(model: Any) -> None:
    """Run a model."""
    if model.checkpoint.contents.component is None:
        model(torch.tensor([[1, 2, 3]]))
    else:
        model(torch.zeros(1, 1, 28, 28), torch.zeros(1, 2, 64), torch.zeros(1, 64), torch.tensor([5.0]))


def mutated(files: dict[str, bytes], draw: random.Random, turn: int) -> dict[str, bytes]:
    """The same files with one of them damaged: bits flipped, numbers made huge, bytes swapped, the end cut off."""
    name = draw.choice([name for name in files for _ in range(1 if name.endswith(_TEXT) else 3) if files[name]])
    data = bytearray(files[name])
    if name.endswith(".json") and turn % 2:
        return files | {name: _other_value(bytes(data), draw)}
    reach = min(len(data), _NEAR) if turn % 4 else len(data)
    tail = turn % 4 == 2 and not name.endswith(_TEXT)
    kind = draw.choice(["flip", "flip", "huge", "copy", "cut", "grow"])
    place = len(data) - 1 - draw.randrange(reach) if tail else draw.randrange(reach)
    if kind == "flip":
        for at in [place, *(draw.randrange(reach) for _ in range(draw.choice([0, 0, 2])))]:
            data[at] ^= 1 << draw.randrange(8)
    elif kind == "huge":
        width = draw.choice([4, 8])
        data[place : place + width] = draw.choice([b"\xff", b"\x7f", b"\x00"]) * width
    elif kind == "copy":
        other = draw.randrange(reach)
        data[place : place + 16] = data[other : other + 16]
    elif kind == "cut":
        del data[place:]
    else:
        data[place:place] = draw.randbytes(draw.choice([1, 8, 64]))
    return files | {name: bytes(data)}


def _other_value(text: bytes, draw: random.Random) -> bytes:
    """A JSON object with one of its values, however deep, turned into another."""
    whole = json.loads(text)
    here = whole
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return text
        key = draw.choice(keys)
        if isinstance(here[key], dict | list) and here[key] and draw.random() < 0.8:
            here = here[key]
            continue
        here[key] = draw.choice([None, -1, 0, 1, 3, 1 << 40, 0.5, "x", "", [], {}, True, [1 << 62], {"a": "b"}])
        return json.dumps(whole).encode()


def attempt(folder: Path, whole: bool, runs: bool) -> bool:
    """Read a checkpoint; whether it was taken.

    Args:
        whole: build the model too.
        runs: and it must answer: a damaged configuration can be sound for transformers and still make no model that
            runs, damaged tensors cannot.

    Raises:
        Exception: of any kind but FormatError, which is the answer wanted.
    """
    try:
        ckpt = Checkpoint.open(folder)
        if whole:
            model = load(ckpt, device="cpu")
            if runs:
                answered(model)
            return True
        found = layout(ckpt)
        for spec in found.specs.values() if found.form is not None else ():
            found.form.read(ckpt, spec)
    except FormatError:
        return False
    return True


def fuzz(name: str, variant: str | None, count: int, seed: int) -> tuple[int, int]:
    """How many damaged checkpoints were refused, and how many taken.

    Raises:
        RuntimeError: one ended in something else; the message holds the traceback, and the folder is kept.
    """
    changes = {} if variant is None else fixtures.variants(name)[variant]
    draw, refused = random.Random(f"{name} {variant} {seed}"), 0
    with tempfile.TemporaryDirectory() as scratch:
        good = Checkpoint.open(example(name, Path(scratch) / "good", **changes)).folder
        files = {str(path.relative_to(good)): path.read_bytes() for path in sorted(good.rglob("*")) if path.is_file()}
        bad = Path(scratch) / "bad"
        for turn in range(count):
            shutil.rmtree(bad, ignore_errors=True)
            made = mutated(files, draw, turn)
            sound = all(made[file] == files[file] for file in files if file.endswith(_TEXT))
            for file, content in made.items():
                (bad / file).parent.mkdir(parents=True, exist_ok=True)
                (bad / file).write_bytes(content)
            signal.alarm(LIMIT_S)
            try:
                refused += not attempt(bad, whole=turn % 10 == 0, runs=sound)
            except BaseException as error:
                signal.alarm(0)
                kept = Path(tempfile.mkdtemp(prefix=f"forq-fuzz-{name}-")) / "checkpoint"
                shutil.copytree(bad, kept)
                what = "".join(traceback.format_exception(error)[-6:])
                raise RuntimeError(
                    f"{name} {variant}, seed {seed}, mutation {turn} (kept in {kept}):\n{what}"
                ) from None
            signal.alarm(0)
    return refused, count - refused


def _late(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"a checkpoint was not answered for within {LIMIT_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", default=NAMES)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _late)
    bad = 0
    for name in args.formats:
        answered(load(example(name, Path(tempfile.mkdtemp()) / "warm"), device="cpu"))
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + LIMIT_BYTES, resource.RLIM_INFINITY))
        variants = [None, *(fixtures.variants(name) if name in fixtures.FORMATS else ())]
        try:
            told = [
                fuzz(name, variant, len(range(place, args.count, len(variants))), args.seed)
                for place, variant in enumerate(variants)
            ]
            print(json.dumps({"format": name, "refused": sum(t[0] for t in told), "taken": sum(t[1] for t in told)}))
        except RuntimeError as error:
            bad += 1
            print(error, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
