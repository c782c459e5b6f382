"""TinyStories-656K in every format, tuned on tinyshakespeare kind by kind: 1,000 forwards, qzo (codes: zoqo) untouched.

    python experiments/formats.py make  --data $FORQ_DATA --work FOLDER --format aqlm   # FOLDER/aqlm, a checkpoint
    python experiments/formats.py run   --data $FORQ_DATA --work FOLDER --format aqlm   # results/formats.jsonl
    python experiments/formats.py table                                                 # as Markdown

Every row is one `forq tune` in a process of its own, its command beside its numbers; a row that is there is not run
again. A checkpoint a format's own library writes is made in `.venv-formats` (tests/oracles/formats/setup.sh).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from shakespeare import run, spread, tune
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.models.convert.export import export
from forq.models.layout import layout

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.fixtures.onnx_llama import dense, llama  # noqa: E402

TARGET = ROOT / "results" / "formats.jsonl"
SEEDS = (0, 1, 2)
STEPS = int(0.95 * 1000) // 9
"""Nine forwards a step, and a twentieth of 1,000 to calibrate."""
VOTES = int(0.95 * 1000) // 2
"""Two a step, where codes move."""


def make_aqlm(floating: Path, folder: Path) -> None:
    """2x8 by residual k-means on the float weights. No data is seen: AQLM's format, not its calibration."""
    _additive(floating, folder, codebooks=2, bits=8)


def make_aqlm_2x5(floating: Path, folder: Path) -> None:
    """2x5, which is as coarse for layers as small as these as 2x8 is for a large model's."""
    _additive(floating, folder, codebooks=2, bits=5)


def by_its_library(name: str) -> Callable[[Path, Path], None]:
    """A maker that has the format's library quantize, as experiments/formats_theirs.py says."""

    def make(floating: Path, folder: Path) -> None:
        python = ROOT / ".venv-formats" / "bin" / "python"
        script = ROOT / "experiments" / "formats_theirs.py"
        subprocess.run([str(python), str(script), name, str(floating), str(folder)], check=True)
        # What the library does not write: the tokenizer.
        for path in floating.iterdir():
            if path.suffix != ".safetensors" and not (folder / path.name).exists():
                (folder / path.name).write_bytes(path.read_bytes())

    return make


def make_awq(floating: Path, folder: Path) -> None:
    """AWQ by gptqmodel, which searches scales and clips on TinyStories; float16 (minutes)."""
    text = floating.parent / "tinystories-text" / "tinystories.txt"
    _by_library(".venv-gptq", "experiments/awq.py", floating, text, folder)


def make_compressed_tensors(floating: Path, folder: Path) -> None:
    """pack-quantized by the library, W4A16 symmetric, group 64, bfloat16; the embedding's tie is kept."""
    _by_library(".venv-formats", "tests/oracles/compressed/make.py", folder, "w4-64", "--model", floating)
    for path in floating.glob("*token*.json"):
        (folder / path.name).write_bytes(path.read_bytes())


def make_gguf_q4_0(floating: Path, folder: Path) -> None:
    """One file, Q4_0 by gguf-py, the embedding Q8_0."""
    _by_library(".venv-formats", "experiments/formats_gguf.py", "q4_0", floating, folder)


def make_gguf_q4_k(floating: Path, folder: Path) -> None:
    """The shipped demo model in another dress: its 4-bit weights as floats, and those as Q4_K and Q6_K."""
    with tempfile.TemporaryDirectory() as scratch:
        export(ROOT / "src" / "forq" / "demo" / "checkpoint", Path(scratch) / "float", "float32")
        _by_library(".venv-formats", "experiments/formats_gguf.py", "q4_k", Path(scratch) / "float", folder)


def make_onnx(floating: Path, folder: Path) -> None:
    """A graph of our own; onnxruntime quantizes its products but the head's: 4 bits, symmetric, blocks of 32."""
    folder.mkdir(parents=True)
    ckpt = Checkpoint.open(floating)
    tensors = {name: ckpt.read(name).float().numpy() for name in ckpt.info}
    tensors["model.embed_tokens.weight"] = tensors["lm_head.weight"]  # tied, and stored as the head
    source = folder / "float.onnx"
    onnx.save_model(llama(ckpt.config, tensors, dense(tensors)), str(source))
    _by_library(
        ".venv-formats", "tests/oracles/onnx/quantize.py", source, folder / "model_q4.onnx", "--leave", "lm_head.MatMul"
    )
    source.unlink()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((floating / name).read_bytes())


MAKERS: dict[str, tuple[Callable[[Path, Path], None], tuple[str, ...]]] = {
    "aqlm": (make_aqlm, ("scales", "codebooks", "scales,codebooks", "codes")),
    "aqlm-2x5": (make_aqlm_2x5, ("scales", "codebooks", "scales,codebooks")),
    "awq": (make_awq, ("scales",)),
    "compressed-tensors": (make_compressed_tensors, ("scales",)),
    "gguf-q4_0": (make_gguf_q4_0, ("scales",)),
    "gguf-q4_k": (make_gguf_q4_k, ("scales", "codes")),
    "onnx": (make_onnx, ("scales", "codes")),
    "torchao": (by_its_library("torchao"), ("scales",)),
    "torchao-int8": (by_its_library("torchao-int8"), ("scales",)),
    "hqq": (by_its_library("hqq"), ("scales", "offsets")),
    "nf4": (by_its_library("nf4"), ("scales", "codes", "codes estimator.noise=rademacher")),
    "nf4-nested": (by_its_library("nf4-nested"), ("scales",)),
    "fp4": (by_its_library("fp4"), ("scales", "codes")),
    "int8": (by_its_library("int8"), ("scales", "codes")),
}
"""By format: how its checkpoint is made from the float one, and what is moved, a run a kind and seed; after the kinds
settings that are not the recipe's own."""


def _by_library(environment: str, script: str, *words: object) -> None:
    """Let a format's own library write, in its environment."""
    command = [str(ROOT / environment / "bin" / "python"), str(ROOT / script), *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _additive(floating: Path, folder: Path, codebooks: int, bits: int, width: int = 8) -> None:
    ckpt = Checkpoint.open(floating)
    inside = {name for name, info in ckpt.info.items() if ".layers." in name and len(info.shape) == 2}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name in ckpt.info:
            if name not in inside:
                yield name, ckpt.read(name)
                continue
            module = name.removesuffix(".weight")
            weight = ckpt.read(name).float()
            scales = weight.square().mean(1).sqrt().clamp_min(1e-8).to(torch.float16)
            vectors = (weight / scales.float()[:, None]).view(-1, width)
            codes, books = residual_kmeans(vectors, codebooks, 1 << bits)
            signed = torch.where(codes >= 1 << bits - 1, codes - (1 << bits), codes)
            yield f"{module}.codes", signed.view(len(weight), -1, codebooks).to(torch.int8)
            yield f"{module}.codebooks", books.view(codebooks, 1 << bits, 1, width).to(torch.float16)
            yield f"{module}.scales", scales.view(-1, 1, 1, 1)

    made = dict(tensors())
    settings: dict[str, Any] = {"quant_method": "aqlm", "in_group_size": width, "out_group_size": 1}
    settings |= {"num_codebooks": codebooks, "nbits_per_codebook": bits}
    settings["linear_weights_not_to_quantize"] = sorted({"lm_head.weight", *ckpt.info} - inside)
    write(floating, folder, made, settings)


def residual_kmeans(vectors: Tensor, codebooks: int, size: int, rounds: int = 20) -> tuple[Tensor, Tensor]:
    """Codes (n, C) and vectors (C, size, width) whose sums lie near the given ones: Lloyd's rounds, a codebook at a
    time, each on what the others leave."""
    draw = torch.Generator().manual_seed(0)
    books = torch.zeros(codebooks, size, vectors.shape[1])
    codes = torch.zeros(len(vectors), codebooks, dtype=torch.long)
    left = vectors.clone()
    for turn in range(rounds):
        for number in range(codebooks):
            book, own = books[number], codes[:, number]
            target = left if turn == 0 else left + book[own]
            if turn == 0:
                first = torch.randperm(len(target), generator=draw)[:size]
                book[: len(first)] = target[first]
            own.copy_(torch.cdist(target, book).argmin(1))
            count = torch.bincount(own, minlength=size)
            mean = torch.zeros_like(book).index_add_(0, own, target) / count.clamp_min(1)[:, None]
            book.copy_(torch.where(count[:, None] > 0, mean, book))
            left = target - book[own]
    return codes, books


def write(floating: Path, folder: Path, made: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """A folder of these tensors, the settings in its config.json, and the float checkpoint's other files."""
    folder.mkdir(parents=True)
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in made.items()}
    write_file(folder / "model.safetensors", plan, made.items())
    for path in floating.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((floating / "config.json").read_text()) | {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def bits_a_weight(path: Path) -> float:
    """All bytes of the quantized layers but their biases, in bits, by their weights: tables and scales included."""
    ckpt = Checkpoint.open(path)
    specs = layout(ckpt).specs.values()
    held = {name for spec in specs for name in spec.tensors if name != spec.bias}
    weights = sum(spec.in_features * spec.out_features for spec in specs)
    return 8 * sum(ckpt.info[name].nbytes for name in held) / weights


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each format and kind that moved."""
    out = [
        "| format | moves | bits a weight | seeds | forwards | test before | test after | seconds | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        good = [row for row in mine if "error" not in row]
        name, _, kinds = method.partition(": ")
        if not good:
            out.append(f"| {name} | {kinds} | | 0 of {len(mine)} | | {mine[0]['error'][:80]} | | | |")
            continue
        seeds = str(len(good)) if len(good) == len(mine) else f"{len(good)} of {len(mine)}"
        out.append(
            f"| {name} | {kinds} | {good[0]['bits']:.2f} | {seeds} | {good[0]['forwards']:,} | "
            f"{good[0]['test']['before']:.3f} | {spread([row['test']['after'] for row in good])} | "
            f"{statistics.median(row['seconds'] for row in good):.0f} | {max(row['peak_mb'] for row in good)} |"
        )
    return "\n".join(out) + "\n"


def recorded() -> list[dict[str, Any]]:
    """The rows there are by now; several of these scripts may be adding to them."""
    return [json.loads(row) for row in TARGET.read_text().splitlines()] if TARGET.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("make", "run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--format", choices=MAKERS, action="append")
    args = parser.parse_args()
    if args.action == "table":
        print(table(recorded()))
        return
    data, work = args.data.resolve(), args.work.resolve()
    for name in args.format or MAKERS:
        maker, moves = MAKERS[name]
        path = work / name
        if not path.exists():
            partial = work / f".{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            work.mkdir(parents=True, exist_ok=True)
            maker(data / "tinystories-656k", partial)
            partial.rename(path)
        print(f"{path}: {bits_a_weight(path):.2f} bits a weight")
        for kinds in moves if args.action == "run" else ():
            for seed in SEEDS:
                move, *sets = kinds.split()
                recipe, steps = ("zoqo", VOTES) if move == "codes" else ("qzo-slopes", STEPS)
                job = tune(f"{name}: {kinds}", path, recipe, steps, seed, *sets)
                job["words"] += ["--move", move]
                if any((row["method"], row["seed"]) == (job["method"], seed) for row in recorded()):
                    continue
                row = run(job, data, work) | {"bits": bits_a_weight(path), "label": "small real"}
                with TARGET.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
