"""llama.cpp itself: every architecture of the table, in float32 and quantized, as made and as saved after a move.

Float32 files agree to the last bits. Both programs round every sum, and the errors of the blocks add up like noise:
the bound grows with the root of the number of blocks. GELU is the exception: llama.cpp looks it up in a table of
float16, so that the same lookup in forq's model (``llamacpp/rounded.py``) must give its logits. A value whose float32
differs in the last bit may fall to the next entry of the table, 2⁻¹¹ of it away; the median token is therefore held
to 1e-4. Quantized files are held as ``test_llamacpp_oracle.py`` explains: to forq's model with llama.cpp's rounding of
activations, the median token to 1e-3, and the mean to half of what the rounding changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forq.errors import FormatError
from forq.models.load import load
from forq.models.space import space
from forq.scalars.moves import Move, Term, direction_seed
from tests.fixtures.gguf_architectures import ROWS, Q, made, write
from tests.oracles.gguf.blocks import packed
from tests.oracles.llamacpp import ask
from tests.oracles.llamacpp.rounded import looked_up, rounded

pytestmark = ask.pytestmark

IDS = torch.randint(0, 320, (1, 40), generator=torch.Generator().manual_seed(2))
EXACT, TABLE, ROUNDED = 5e-6, 1e-4, 1e-3
"""EXACT is for two blocks, as most rows have."""
TYPES = (Q.Q8_0, Q.Q4_K, Q.Q6_K, Q.F16, Q.Q4_0, Q.Q5_1, Q.Q5_K)
WITHOUT_GELU = ("llama", "qwen2", "qwen3", "granite", "smollm3", "phi3", "stablelm", "nemotron", "command-r", "cohere2")
WITHOUT_GELU += ("glm4", "olmo2")
DEEP = "command-r, norms"
"""llama.cpp reads these norms in deep models alone, whose quantized logits say nothing: rounding is carried on."""
Files = dict[tuple[str, str], list[Path]]


def outputs(file: Path, turn: Callable[[Any], Any] = lambda model: model) -> np.ndarray:
    """forq's logits, or an encoder's last states, float32 (tokens, width)."""
    with torch.no_grad():
        answer = turn(load(file, device="cpu", kernel="reference"))(IDS)
    states = answer.logits if hasattr(answer, "logits") else answer.last_hidden_state
    return np.asarray(states[0].numpy())


def gap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The largest difference of each token's numbers, relative to the largest of them."""
    return np.asarray(np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max(axis=1))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Every row in float32 and quantized, each as made and as saved by forq after moves, and scored by llama.cpp."""
    root = tmp_path_factory.mktemp("architectures")
    every: Files = {}
    for turn, name in enumerate(ROWS):
        draw = np.random.default_rng(turn)
        plain = write(root / f"{turn}-plain" / "made.gguf", name, made(name))
        every[name, "plain"] = [plain, moved(plain, "dense", 0.02, "rademacher")]
        if name != DEEP:
            model = made(name, width=256, layers=1)
            file = write(root / f"{turn}" / "made.gguf", name, model, TYPES, lambda q, w, d=draw: packed(q, w, d))
            every[name, "quantized"] = [
                file,
                moved(file, "scales", 0.1, "rademacher"),
                moved(file, "codes", 1.0, "sparse:0.2"),
            ]
    settings: dict[str, Any] = {"ids": IDS[0].tolist(), "exact": True}
    encoders = [file for (name, _), case in every.items() for file in case if name == "bert"]
    decoders = [file for (name, _), case in every.items() for file in case if name != "bert"]
    answers = ask.score(decoders, logits=True, **settings) | ask.score(encoders, states=True, **settings)
    refused = [file for file, answer in answers.items() if answer["loss"] is None]
    assert not refused
    return every


def moved(file: Path, kind: str, size: float, noise: str) -> Path:
    model = load(file, device="cpu", kernel="reference")
    moving = space(model, kind)
    assert moving.apply(Move((Term(direction_seed(0, 0), size, noise),))).changed > 0.01 * moving.size
    saved = model.checkpoint.save_patched(file.parent / kind, moving.exported())
    return saved.path / file.name


@pytest.mark.parametrize("name", ROWS)
def test_float_files_agree(name: str, files: Files, compared: Any) -> None:
    for file in files[name, "plain"]:
        theirs, plain = np.load(f"{file}.npy"), outputs(file)
        compared("llama.cpp", f"{name}: float32; relative, median token", np.median(gap(plain, theirs)))
        if name.partition(",")[0] in WITHOUT_GELU:
            assert gap(plain, theirs).max() < EXACT * math.sqrt(ROWS[name].layers / 2)
            continue
        ours = outputs(file, looked_up)
        what = f"{name}: float32, its table of GELU imitated; relative, median token"
        compared("llama.cpp", what, np.median(gap(ours, theirs)))
        assert np.median(gap(ours, theirs)) < TABLE
        assert gap(ours, theirs).mean() < gap(plain, theirs).mean() / 2


@pytest.mark.parametrize("name", [name for name in ROWS if name != DEEP])
def test_quantized_files_agree_before_and_after_moves(name: str, files: Files, compared: Any) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    for file in files[name, "quantized"]:
        theirs, plain, ours = np.load(f"{file}.npy"), outputs(file), outputs(file, rounded)
        what = f"{name}: quantized, moved or not, its activation rounding imitated; relative, median token"
        compared("llama.cpp", what, np.median(gap(ours, theirs)))
        assert np.median(gap(ours, theirs)) < ROUNDED
        assert gap(ours, theirs).mean() < gap(plain, theirs).mean() / 2
        seen.append((ours, theirs))
    for ours, theirs in seen[1:]:
        change = theirs - seen[0][1]
        assert np.abs(change).max() > 0.01 * theirs.std()
        assert np.median(gap(ours - seen[0][0], change)) < 10 * ROUNDED


def test_several_files_agree_before_and_after_a_move(tmp_path: Path) -> None:
    first = write(tmp_path / "parts" / "made.gguf", "qwen3", made("qwen3"), split=9)
    whole = write(tmp_path / "whole" / "made.gguf", "qwen3", made("qwen3"))
    files = [first, moved(first, "dense", 0.02, "rademacher"), whole, moved(whole, "dense", 0.02, "rademacher")]
    ask.score(files, ids=IDS[0].tolist(), exact=True, logits=True)
    parts, parts_moved, one, one_moved = (np.load(f"{file}.npy") for file in files)
    assert np.array_equal(parts, one) and np.array_equal(parts_moved, one_moved)
    assert np.abs(parts_moved - parts).max() > 0.01 * parts.std()
    assert gap(outputs(files[1]), parts_moved).max() < EXACT


@pytest.mark.parametrize(("count", "taken"), [(320, True), (319, False)])
def test_a_vocabulary_shorter_than_the_table_is_refused_by_both(count: int, taken: bool, tmp_path: Path) -> None:
    words = {"tokens": [f"w{token}" for token in range(count)], "merges": ["w 1"], "pre": "gpt-2"}
    values = {f"tokenizer.ggml.{key}": value for key, value in words.items()}
    file = write(tmp_path / "made.gguf", "qwen3", made("qwen3", layers=1), values={**values, "vocab_size": None})
    file.write_bytes(file.read_bytes().replace(b"none", b"gpt2", 1))
    assert (ask.score([file], ids=[1, 2])[file]["loss"] is not None) == taken
    if taken:
        load(file, device="cpu")
    else:
        with pytest.raises(FormatError, match=r"a token for each of 320 rows of token_embd.weight, found 319"):
            load(file, device="cpu")
