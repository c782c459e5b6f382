"""llama.cpp itself: every key of a GGUF file that changes its numbers is followed, or refused by name.

The list of keys is llama.cpp's own, read from its code. A key is read for an architecture if a value
of an impossible type makes the file unreadable. Files are of float32: both sides agree to 1e-6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forq.checkpoints.containers.gguf import keys as _gguf_keys
from forq.errors import FormatError
from forq.models.load import load
from tests.oracles.llamacpp import ask
from tests.oracles.llamacpp.make import VOCABULARY, write

pytestmark = ask.pytestmark

KINDS = ("llama", "qwen2", "qwen3")
EXACT = 5e-6
IDS = torch.randint(0, VOCABULARY, (1, 40), generator=torch.Generator().manual_seed(2))
FACTORS = np.linspace(1.0, 8.0, 8)
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
SHORT = {**YARN, "rope.scaling.original_context_length": 16}
EVERY: dict[str, dict[str, Any]] = {
    "plain": {},
    "linear": {"values": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}},
    "factor alone": {"values": {"rope.scaling.factor": 4.0}},
    "old factor": {"values": {"rope.scale_linear": 4.0}},
    "both factors": {"values": {"rope.scale_linear": 4.0, "rope.scaling.factor": 2.0}},
    "no scaling": {"values": {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}},
    "factor 0": {"values": {"rope.scaling.factor": 0.0}},
    "yarn": {"values": SHORT},
    "yarn, whole context": {"values": YARN},
    "yarn, old factor": {"values": {"rope.scaling.type": "yarn", "rope.scale_linear": 4.0}},
    "yarn, magnitude": {"values": {**SHORT, "rope.scaling.attn_factor": 1.3}},
    "linear, magnitude": {"values": {"rope.scaling.factor": 3.0, "rope.scaling.attn_factor": 0.7}},
    "other base": {"values": {**SHORT, "rope.freq_base": 500000.0}},
    "whole head": {"values": {"rope.dimension_count": 16}},
    "heads listed": {"values": {"attention.head_count_kv": [2, 2], "feed_forward_length": [128, 128]}},
    "other norm": {"values": {"attention.layer_norm_rms_epsilon": 0.1}},
}
LLAMA: dict[str, dict[str, Any]] = {
    "divisors": {"factors": FACTORS},
    "divisors, linear": {"factors": FACTORS, "values": {"rope.scaling.factor": 3.0}},
    "divisors, yarn": {"factors": FACTORS, "values": SHORT},
    "biases": {"biases": ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]},
    "wide heads": {"head": 32},
}
CASES = {
    **{(kind, name): settings for kind in KINDS for name, settings in EVERY.items()},
    **{("llama", name): settings for name, settings in LLAMA.items()},
    ("qwen3", "wide heads"): {"head": 32},
}
PLAIN = ("plain", "whole head", "heads listed", "no scaling", "factor 0")
"""Cases that are the same model as ``plain``."""


def gap(file: Path) -> float:
    """The largest difference of logits, relative to the largest of them."""
    theirs = np.load(f"{file}.npy")
    with torch.no_grad():
        ours = load(file, device="cpu")(IDS).logits[0].numpy()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def score(files: list[Path]) -> dict[Path, dict[str, Any]]:
    return ask.score(files, ids=IDS[0].tolist(), exact=True, logits=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("keys")
    made = {case: write(root / f"{n}.gguf", case[0], width=64, **CASES[case]) for n, case in enumerate(CASES)}
    assert all(answer["loss"] is not None for answer in score(list(made.values())).values())
    return made


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_logits_are_llama_cpps(case: tuple[str, str], files: dict[tuple[str, str], Path], compared: Any) -> None:
    off = gap(files[case])
    compared("llama.cpp", "logits of float32 files; relative", off)
    assert off < EXACT
    same = np.array_equal(np.load(f"{files[case]}.npy"), np.load(f"{files[case[0], 'plain']}.npy"))
    assert same == (case[1] in PLAIN)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The keys that llama.cpp reads, by architecture."""
    keys, root = ask.call("keys.py").split(), tmp_path_factory.mktemp("read")
    assert len(keys) > 150
    made = {
        (kind, key): write(root / f"{kind}-{key}.gguf", kind, layers=1, width=64, values={key: ["x"]})
        for kind in KINDS
        for key in keys
    }
    answers = score(list(made.values()))
    return {kind: [key for key in keys if answers[made[kind, key]]["loss"] is None] for kind in KINDS}


def test_every_architecture_reads_the_same_keys(read: dict[str, list[str]]) -> None:
    assert read["llama"] == read["qwen2"] == read["qwen3"]
    assert set(_gguf_keys.READ) <= set(read["llama"])


def test_keys_that_llama_cpp_reads_are_followed_or_refused(
    read: dict[str, list[str]], tmp_path: Path, compared: Any
) -> None:
    tried = [(key, value) for key in read["llama"] for value in (1, 16, 1.5, 3.0, True, False, "linear", "none")]
    made = [
        write(tmp_path / f"{n}.gguf", layers=1, width=64, values={**SHORT, key: value})
        for n, (key, value) in enumerate(tried)
    ]
    answers = score(made)
    refused = set()
    for (key, value), file in zip(tried, made, strict=True):
        if answers[file]["loss"] is None:
            continue
        try:
            off = gap(file)
        except FormatError as error:
            assert f"llama.{key}," in str(error), (key, value)
            refused.add(key)
        else:
            compared("llama.cpp", "header keys, each with several values: logits; relative", off)
            assert off < EXACT, (key, value)
    # Attention that looks ahead, and a context that transformers' yarn reads otherwise: no others.
    assert refused == {"attention.causal", "rope.scaling.original_context_length"}
