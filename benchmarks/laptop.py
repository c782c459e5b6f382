"""A quantized model on a laptop: its forward against the same network dense in float32, and against llama.cpp.

    python -m benchmarks.laptop speed FILE.gguf … [--llamacpp PYTHON] [--tokens 16 --tokens 64] [--out FILE.json]
    python -m benchmarks.laptop memory FILE.gguf [--out FILE.json]
    python -m benchmarks.laptop layers [--out FILE.json]

``speed`` loads each file once and computes logits of every token by four ways in turn, on one thread: forq's native and
reference kernels, native with its products in bfloat16, and the same model with every matrix dense in
float32. With the Python of an environment that
has xllamacpp (tests/oracles/llamacpp/setup.sh), llama.cpp takes its turn too, in a process of its own. ``layers`` is a
single matrix of 2048 × 2048 in each type against torch's float32 product. Medians of processor time: other work on the
machine counts little, but makes caches smaller. ``memory`` takes one file and reads the high-water mark of its process
(Linux) after the imports, after loading, after opening the tokenizer, with the masters of the scales, and in a forward
of so many tokens, beside what ``forq inspect`` predicts for as many. All results are added to the file of --out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parts import batch, loss
from forq.checkpoints.containers.gguf.kinds import BY_NAME
from forq.formats.codecs.gguf_blocks import Blocks
from forq.inspection.memory import summary
from forq.inspection.process import peak_bytes
from forq.layers.embedding import QuantEmbedding
from forq.layers.kernels import ort, reference
from forq.layers.kernels.native import matmul as native
from forq.layers.linear import QuantLinear
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight
from forq.models.load import load
from forq.models.quantized import multiplying
from forq.models.skeleton import put
from forq.models.space import space
from forq.tokens.pretrained import language_model

TOKENS = (16, 64, 256, 1024)
TIMED = Path(__file__).parents[1] / "tests" / "oracles" / "llamacpp" / "timed.py"
SIZE = 2048


class Dense(nn.Module):
    """A dense float32 table: an embedding, with the factor that the family multiplies it by."""

    def __init__(self, matrix: Tensor, scale: Tensor | float | None) -> None:
        super().__init__()
        self.matrix, self.scale = matrix, scale

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.matrix[ids]
        return rows if self.scale is None else rows * self.scale


class Ways:
    """One model by several ways: the kernels of its layers, or dense matrices in their places."""

    def __init__(self, file: str) -> None:
        self.model: Any = load(file, "cpu", kernel="native")
        self._rounding = [layer for layer in multiplying(self.model) if isinstance(layer, QuantLinear)]
        self._places = {
            name: module
            for name, module in self.model.named_modules(remove_duplicate=False)
            if isinstance(module, QuantLinear | QuantEmbedding) and not name.endswith(".table")
        }
        matrices = {id(layer): layer.dequantise() for layer in self._layers()}
        self._dense: dict[str, nn.Module] = {}
        for name, module in self._places.items():
            if isinstance(module, QuantEmbedding):
                self._dense[name] = Dense(matrices[id(module.table)], module.scale)
            else:
                plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
                plain.weight, plain.bias = nn.Parameter(matrices[id(module)], False), module.bias
                self._dense[name] = plain

    def _layers(self) -> Iterator[QuantLinear]:
        for module in self._places.values():
            yield module.table if isinstance(module, QuantEmbedding) else module

    def choose(self, way: str) -> None:
        for name, module in self._places.items():
            put(self.model, name, self._dense[name] if way == "dense" else module)
        for layer in self._layers():
            layer.unpacked = "reference" if way == "reference" else "native"
        for layer in self._rounding:
            layer.in_bfloat16 = way == "bfloat16"

    def forward(self, tokens: int) -> None:
        data = batch(self.model, max(1, tokens // 256), min(tokens, 256))
        with torch.inference_mode():
            for _ in language_model(self.model).scored_logits(data):
                pass


@contextmanager
def llamacpp(python: str | None, file: str) -> Iterator[Callable[[int], float] | None]:
    """llama.cpp's processor seconds for so many tokens."""
    if python is None:
        yield None
        return
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    process = subprocess.Popen(
        [python, str(TIMED), file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean
    )
    assert process.stdin is not None and process.stdout is not None
    into, back = process.stdin, process.stdout

    def seconds(tokens: int) -> float:
        into.write(f"{tokens}\n")
        into.flush()
        return float(back.readline())

    with process:
        yield seconds
        into.close()


def timed(task: Callable[[], object]) -> float:
    began = time.process_time()
    task()
    return time.process_time() - began


def rounds_for(tokens: int, most: int) -> int:
    return max(3, min(most, most * 64 // tokens))


def speed(file: str, python: str | None, tokens: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Seconds of the dense model, and the other ways ÷ it, by number of tokens."""
    ways, found = Ways(file), {}
    with llamacpp(python, file) as other:
        for count in tokens:
            seconds: dict[str, list[float]] = {}
            for turn in range(1 + rounds_for(count, rounds)):
                for way in ("dense", "native", "bfloat16", "reference", *(("llama.cpp",) if other is not None else ())):
                    if way == "llama.cpp":
                        assert other is not None
                        taken = other(count)
                    else:
                        ways.choose(way)
                        taken = timed(partial(ways.forward, count))
                    if turn or count >= 1024:  # the first warms up
                        seconds.setdefault(way, []).append(taken)
            found[str(count)] = over(seconds, "dense")
            print(Path(file).name, count, found[str(count)], flush=True)
    return found


def over(seconds: Mapping[str, list[float]], base: str) -> dict[str, float]:
    """Median seconds of the base, and of the others ÷ it."""
    median = {way: statistics.median(values) for way, values in seconds.items()}
    ratios = {f"{way} / {base}": round(value / median[base], 2) for way, value in median.items() if way != base}
    return {f"{base}, seconds": round(median[base], 4), **ratios}


def made(name: str) -> tuple[QuantWeight | Blocks, list[Tensor]]:
    """A random matrix of a type, and its live tensors."""
    kind, draw = BY_NAME[name], torch.Generator().manual_seed(0)
    count = SIZE // kind.size
    live = [torch.rand(SIZE, count, generator=draw) for _ in kind.live]
    if name in ("Q4_0", "Q8_0"):
        codes = torch.randint(0, 256, (SIZE, SIZE * kind.bits // 8), dtype=torch.uint8, generator=draw)
        zeros = torch.full((count, SIZE), 1 << kind.bits - 1, dtype=torch.int8 if kind.bits < 8 else torch.int16)
        return QuantWeight(codes, zeros, kind.bits, kind.size), live
    fields = {field.name: field for field in kind.fields}
    raw = {
        field: torch.randint(0, 256, (SIZE, count, fields[field].count), dtype=torch.uint8, generator=draw)
        for field in ("qs", "scales")
        if field in fields
    }
    return Blocks(kind, raw["qs"], raw["scales"].view(fields["scales"].dtype) if "scales" in raw else None), live


def by_kernel(name: str) -> dict[str, Callable[[Tensor], object]]:
    """The product of x with a matrix of a type, by each kernel that can compute it, and with a dense one."""
    (weight, live), scratch, dense = made(name), Scratch(), torch.randn(SIZE, SIZE)
    found: dict[str, Callable[[Tensor], object]] = {"dense": lambda x: x @ dense.t()}
    if isinstance(weight, QuantWeight):
        found["native"] = lambda x: native.matmul(x, weight, live[0].t(), None, scratch)
        found["reference"] = lambda x: reference.matmul(x, weight, live[0].t(), None, scratch)
        if weight.bits == 4 and ort.missing() is None:
            packed = ort.Kernel(weight)
            found["ort"] = lambda x: packed.matmul(x, live[0].t())
        return found
    found["native"] = lambda x: native.matmul_rows(x, weight, live, None, scratch)
    found["reference"] = lambda x: reference.matmul_rows(x, weight, live, None, scratch)
    return found


def layers(tokens: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Each kernel ÷ torch's float32 product by type and number of tokens, one matrix."""
    found: dict[str, Any] = {}
    for name in ("Q4_0", "Q4_1", "Q8_0", "Q5_0", "Q4_K", "Q5_K", "Q6_K"):
        products = by_kernel(name)
        for count in tokens:
            x = torch.randn(count, SIZE)
            seconds: dict[str, list[float]] = {way: [] for way in products}
            for turn in range(1 + rounds_for(count, rounds)):
                for way, product in products.items():
                    taken = timed(partial(product, x))
                    if turn:
                        seconds[way].append(taken)
            found.setdefault(name, {})[str(count)] = over(seconds, "dense")
            print(name, count, found[name][str(count)], flush=True)
    return found


def memory(file: str, tokens: tuple[int, ...]) -> dict[str, float]:
    """Peaks in MB of this process, which should have done nothing else."""
    from transformers.models.llama import modeling_llama  # noqa: F401  # the imports of any decoder

    marks = {"imports": peak_bytes()}
    model: Any = load(file, "cpu")
    marks["loaded"] = peak_bytes()
    assert len(model.tokenizer)  # opened here
    marks["tokenizer"] = peak_bytes()
    moves = space(model)
    marks[f"two copies of {moves.size:,} scales"] = peak_bytes()
    for count in tokens:
        loss(model, batch(model, max(1, count // 128), min(count, 128)))
        marks[f"{count} tokens"] = peak_bytes()
        marks[f"{count} tokens, predicted"] = summary(model.checkpoint, count).peak_bytes or 0
    return {name: round(value / 1e6, 1) for name, value in marks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory", "layers"))
    parser.add_argument("files", nargs="*")
    parser.add_argument("--llamacpp", help="the Python of an environment with xllamacpp")
    parser.add_argument("--tokens", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokens = tuple(args.tokens or TOKENS)
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out is not None and args.out.exists() else {}
    found["torch"] = version("torch")
    if args.what == "layers":
        found["layers"] = layers(tokens, 3 * args.rounds)
    for file in args.files if args.what == "memory" else ():
        found.setdefault("memory", {})[Path(file).name] = memory(file, tokens)
        print(found["memory"][Path(file).name])
    for file in args.files if args.what == "speed" else ():
        kept = found.setdefault("speed", {}).setdefault(Path(file).name, {})
        kept.update(speed(file, args.llamacpp, tokens, args.rounds))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
