"""What only a GPU shows: every format computes there what it computes on a CPU, moves have the same bits, and a run's
journal rebuilds it on a machine without one."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from forq.models.load import load
from forq.models.quantized import kernels
from forq.models.space import space
from forq.runs import journal
from forq.scalars.moves import Link, Move, Term, direction_seed
from tests.cli.conftest import command, environment
from tests.contract.test_formats import IDS
from tests.fixtures import CASES, example

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

OPTIONS = ("--steps", 40, "--eval-every", 20, "--set", "task.max_length=32", "--set", "task.validation_rows=16")
SEEDS = [direction_seed(3, 1, index) for index in range(3)]
MOVES = {
    "scales": Move(tuple(Term(seed, 0.01 * (-1) ** n, "rademacher") for n, seed in enumerate(SEEDS))),
    "scales by rows": Move((Term(SEEDS[0], 0.03, "rows:rademacher"), Term(SEEDS[1], -0.02, "rademacher"))),
    "scales by sign": Move((Term(SEEDS[0], 1.0, "rademacher"), Term(SEEDS[1], 1.0, "sparse:0.5")), Link("sign", 0.01)),
    "codes, few": Move((Term(SEEDS[0], 1.0, "cells:0.1"),)),
    "codes, all": Move((Term(SEEDS[0], 1.0, "uniform_grid:2"),)),
    "codes by votes": Move((Term(SEEDS[0], 3.0, "sign:uniform_grid:1"),), Link("sign", 1.0)),
    "codes at random": Move(tuple(Term(seed, 0.3, "rademacher") for seed in SEEDS)),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(filter(None, case)))
def test_a_format_computes_the_same(case: tuple[str, str | None], tmp_path: Path) -> None:
    name, variant = case
    if name == "onnx":
        pytest.skip("a graph is computed on a CPU")
    path = example(name, tmp_path / "example", variant)
    want = load(path, device="cpu")(IDS).logits
    plain = {}
    for kernel in ("auto", "reference"):
        model = load(path, device="cuda", dtype=torch.float32, kernel=kernel)  # type: ignore[arg-type]
        plain[kernel] = model(IDS.cuda()).logits.cpu()
        assert (plain[kernel] - want).abs().max() < 1e-4 * want.abs().max()
    assert set(kernels(model)) == {"reference"}
    for dtype in (torch.float16, torch.bfloat16):
        got = load(path, device="cuda", dtype=dtype)(IDS.cuda()).logits.float().cpu()
        assert (got - want).abs().max() < 0.05 * want.abs().max()


WHOSE = [(name, "gptq", {}) for name in MOVES]
WHOSE += [(name, "gguf", {"types": ("Q5_K", "Q4_1"), "width": 256, "hidden": 256}) for name in MOVES if "codes" in name]
WHOSE += [(name, form, {}) for form in ("aqlm", "bnb4", "hqq") for name in ("codes, few", "codes, all")]


@pytest.mark.parametrize(("name", "form", "changes"), WHOSE, ids=lambda what: what if isinstance(what, str) else "")
def test_moves_have_the_bits_of_a_cpu(name: str, form: str, changes: dict[str, Any], tmp_path: Path) -> None:
    move = MOVES[name]
    kind = name.split(" ")[0].rstrip(",")
    path = example(form, tmp_path / "example", **changes)
    shown, moved, digests = [], [], []
    for device in ("cpu", "cuda"):
        model = load(path, device=device, dtype=torch.float32)
        here = space(model, kind)
        with here.displaced(move), torch.inference_mode():
            shown.append(model(IDS.to(model.device)).logits.cpu())
        moved.append([here.apply(move), here.apply(move.scaled(-1))])
        digests.append((here.digest(), {key: value.cpu() for key, value in here.exported().items()}))
    assert moved[0] == moved[1] and moved[0][0].changed
    assert digests[0][0] == digests[1][0]
    for key, value in digests[0][1].items():
        assert torch.equal(value.view(torch.uint8), digests[1][1][key].view(torch.uint8))
    assert torch.allclose(*shown, rtol=1e-3, atol=1e-3)


def call(*words: object, gpu: bool = True) -> Any:
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    env = environment() | hidden
    done = subprocess.run(command(*words), capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.parametrize(
    "how",
    [("qzo",), ("zoqo",), ("zoqo", "--move", "lora", "--bits", 8), ("qes",)],
    ids=lambda how: "-".join(map(str, how[::2])),
)
def test_a_run_on_a_gpu_is_rebuilt_without_one(how: tuple[Any, ...], base: Path, text: Path, tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    call("tune", base, "--task", "text", "--data", text, "--out", run, *OPTIONS, "--recipe", *how, "--device", "cuda")
    header = journal.read(run / "journal.jsonl").header
    assert header["device"] == "cuda" and ("codes" in str(header["leaves"]) or "triton" in str(header["kernel"]))
    call("verify", run, gpu=False)
    call("replay", run, "--base", base, "--out", again, gpu=False)
    made = run / ("adapter" if "lora" in how else "checkpoint")
    for path in made.iterdir():
        rebuilt = next(again.rglob(path.name))
        assert rebuilt.read_bytes() == path.read_bytes(), path.name


def test_a_killed_run_goes_on(base: Path, text: Path, tmp_path: Path) -> None:
    words = ("--task", "text", "--data", text, *OPTIONS, "--device", "cuda")
    call("tune", base, *words, "--out", tmp_path / "whole")
    begin = (base, *words, "--out", tmp_path / "cut")
    again = (base, "--out", tmp_path / "cut", "--resume")
    path = tmp_path / "cut" / "journal.jsonl"
    for how in (begin, again):
        going = subprocess.Popen(command("tune", *how), env=environment(), stderr=subprocess.DEVNULL)
        before = path.read_bytes().count(b"\n") if path.exists() else 0
        while going.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") > before + 8):
            time.sleep(0.02)
        going.kill()
        going.wait()
    call("tune", *again)
    losses, results = [], []
    for one in ("whole", "cut"):
        losses.append([line.losses for line in journal.read(tmp_path / one / "journal.jsonl").lines])
        results.append(json.loads((tmp_path / one / "result.json").read_text())["validation"])
    assert losses[0] == losses[1] and results[0] == results[1]
