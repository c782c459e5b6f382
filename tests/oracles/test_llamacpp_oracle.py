"""llama.cpp itself: every type that forq reads, as made and as saved after a move; a published model.

Files of float32 agree to the last bits. llama.cpp multiplies any other matrix by rounded
activations: 8 bits for a quantized one (``llamacpp/rounded.py`` says how), the type itself for
float16 and bfloat16. Hence the tolerance is not a guess: forq's own model with the same rounding in
front of each matrix must give llama.cpp's logits, which leaves nothing else to differ.

Both round float32 values that differ in their last bits, so that a few values of a file fall to
the next integer, 1/127 of their block's largest away, and the tokens behind carry it on. The median
token is therefore held to 1e-3, where 1e-6 is usual, and the mean to half of what rounding changes.
The files have one layer for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.models.load import load
from forq.models.space import space
from forq.scalars.moves import Move, Term, direction_seed
from tests.oracles.gguf.blocks import Q
from tests.oracles.llamacpp import ask
from tests.oracles.llamacpp.make import VOCABULARY, write
from tests.oracles.llamacpp.rounded import rounded
from tests.smollm2 import loss, tolerance, with_value

pytestmark = ask.pytestmark

FLOATS = (Q.F32, Q.F16, Q.BF16)
BLOCKS = (Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K)
TABLES = (Q.IQ4_NL, Q.IQ4_XS)
STILL = (Q.IQ3_XXS, Q.IQ3_S, Q.IQ2_XXS, Q.IQ2_XS, Q.IQ2_S, Q.IQ1_S, Q.IQ1_M, Q.TQ1_0, Q.TQ2_0)
"""Types whose codes stand still."""
CASES: dict[str, dict[str, Any]] = {
    **{kind.name: {"types": [kind]} for kind in (*FLOATS, *BLOCKS, *TABLES, *STILL)},
    **{f"{kind.name}-tied": {"types": [kind], "tied": True} for kind in (Q.F16, Q.Q4_1, Q.Q8_0, Q.Q4_K, Q.Q6_K)},
    "mixture": {"types": [Q.Q6_K, Q.Q4_K, Q.Q5_K, Q.F16, Q.Q8_0, Q.Q4_0, Q.Q5_1], "tied": True},
    "mixture-iq": {"types": [Q.IQ4_XS, Q.IQ3_S, Q.IQ2_S, Q.Q6_K, Q.IQ1_M, Q.IQ4_NL], "tied": True},
    "mixture-qwen2": {"types": [Q.Q4_0, Q.F32, Q.Q6_K, Q.Q2_K], "kind": "qwen2"},
    "mixture-qwen3": {"types": [Q.Q8_0, Q.Q4_1, Q.Q3_K], "kind": "qwen3"},
}
EXACT, ROUNDED, PUBLISHED = 5e-6, 1e-3, 2e-3
SAME = "logits, its activation rounding imitated; relative, median token"
PLAIN = "logits, its activation rounding not imitated; relative, median token"
IDS = torch.randint(0, VOCABULARY, (1, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Every case as made, and as saved by us after moves, each scored by llama.cpp."""
    root = tmp_path_factory.mktemp("llamacpp")
    found: dict[str, list[Path]] = {}
    for name, settings in CASES.items():
        found[name] = [write(root / name / "made.gguf", layers=1, **settings)]
        floats = all(kind in FLOATS for kind in settings["types"])
        coded = ["scales"] if settings["types"][0] in STILL else ["scales", "codes"]
        for kind in ["dense"] if floats else coded:
            model = load(found[name][0], device="cpu", kernel="reference")
            moving = space(model, kind)
            size, noise = (1.0, "sparse:0.02") if kind == "codes" else (0.05, "rademacher")
            assert moving.apply(Move((Term(direction_seed(0, 0), size, noise),))).changed > 0.01 * moving.size
            model.checkpoint.save_patched(root / f"{name}-{kind}", moving.exported())
            found[name].append(root / f"{name}-{kind}" / "made.gguf")
    every = [file for case in found.values() for file in case]
    answers = ask.score(every, ids=IDS[0].tolist(), exact=True, logits=True)
    assert all(answer["loss"] is not None for answer in answers.values())
    return found


def logits(file: Path, turn: Callable[[Any], Any] = lambda model: model) -> np.ndarray:
    """forq's logits, float32 (tokens, vocabulary)."""
    with torch.no_grad():
        return turn(load(file, device="cpu", kernel="reference"))(IDS).logits[0].numpy()


def gap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The largest difference of each token's logits, relative to the largest of them."""
    return np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max(axis=1)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_llama_cpps(case: str, files: dict[str, list[Path]], compared: Any) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    for file in files[case]:
        theirs, plain, ours = np.load(f"{file}.npy"), logits(file), logits(file, rounded)
        if case == "F32":
            compared("llama.cpp", "logits of float32 files; relative", gap(plain, theirs).max())
            assert gap(plain, theirs).max() < EXACT
        else:
            compared("llama.cpp", SAME, np.median(gap(ours, theirs)))
            compared("llama.cpp", PLAIN, np.median(gap(plain, theirs)))
            assert np.median(gap(ours, theirs)) < ROUNDED
            assert gap(ours, theirs).mean() < gap(plain, theirs).mean() / 2
        seen.append((ours, theirs))
    for ours, theirs in seen[1:]:
        moved = theirs - seen[0][1]
        assert np.abs(moved).max() > 0.01 * np.abs(theirs).max()
        assert np.median(gap(ours - seen[0][0], moved)) < 10 * ROUNDED


def test_losses_of_a_published_model(smollm2: Path, tinyshakespeare: str, tmp_path: Path, compared: Any) -> None:
    """As published, and after a move of its scales."""
    moving = space(load(smollm2, device="cpu"), "scales")
    moving.apply(Move((Term(direction_seed(0, 0), 0.02),)))
    Checkpoint.open(smollm2).save_patched(tmp_path / "moved", moving.exported())
    files = [smollm2, tmp_path / "moved" / smollm2.name]
    before, after = losses(
        dict(zip(("as published", "scales moved"), files, strict=True)), compared, tinyshakespeare, 512
    )
    assert abs(after - before) > 5 * tolerance(512)


def test_its_loss_with_stretched_positions(smollm2: Path, tinyshakespeare: str, tmp_path: Path, compared: Any) -> None:
    """A factor without a type is linear, under either name."""
    files = [
        with_value(smollm2, tmp_path / f"{place}.gguf", f"llama.rope.{key}", 4.0)
        for place, key in enumerate(("scaling.factor", "scale_linear"))
    ]
    named = dict(zip(("rope.scaling.factor 4", "rope.scale_linear 4"), files, strict=True))
    new, old = losses(named, compared, tinyshakespeare, 128)
    plain = ask.score([smollm2], text=tinyshakespeare, count=128)[smollm2]["loss"]
    assert new == old > plain + 0.5


def test_losses_and_tokens_of_gemma_3(gemma3: Path, tinyshakespeare: str, tmp_path: Path, compared: Any) -> None:
    """As published, and after moves of its scales and of its codes."""
    named = {"as published": gemma3}
    for kind, size, noise in (("scales", 0.02, "rademacher"), ("codes", 1.0, "sparse:0.02")):
        moving = space(load(gemma3, device="cpu", kernel="reference"), kind)
        moving.apply(Move((Term(direction_seed(0, 0), size, noise),)))
        Checkpoint.open(gemma3).save_patched(tmp_path / kind, moving.exported())
        named[f"{kind} moved"] = tmp_path / kind / gemma3.name
        del moving
    answers = ask.score(list(named.values()), text=tinyshakespeare, count=512)
    tokenizer = Checkpoint.open(gemma3).contents.tokenizer
    assert tokenizer is not None
    ids = tokenizer()(tinyshakespeare[:4000])["input_ids"][:512]
    for name, file in named.items():
        assert answers[file]["ids"] == ids
        off = abs(loss(load(file, device="cpu"), ids) - answers[file]["loss"])
        compared("llama.cpp", f"loss of Gemma 3 270M Q4_K_M, {name}, on 512 tokens; nats", off)
        assert off < tolerance(512) < 0.02
    assert answers[named["scales moved"]]["loss"] != answers[gemma3]["loss"] != answers[named["codes moved"]]["loss"]


def losses(files: dict[str, Path], compared: Any, text: str, count: int) -> list[float]:
    """llama.cpp's losses of a text's first tokens, held against ours, by what was done to the file."""
    answers = ask.score(list(files.values()), text=text, count=count)
    for name, file in files.items():
        off = abs(loss(load(file, device="cpu"), answers[file]["ids"]) - answers[file]["loss"])
        compared("llama.cpp", f"loss of SmolLM2-135M-Instruct Q4_1, {name}, on {count} tokens; nats", off)
        assert off < (PUBLISHED if name == "as published" else tolerance(count))
    return [answers[file]["loss"] for file in files.values()]
