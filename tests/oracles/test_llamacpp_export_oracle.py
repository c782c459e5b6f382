"""llama.cpp loads what ``forq export --to gguf`` writes: the checkpoint's loss, and its tokens.

Logits are compared as in ``test_llamacpp_oracle.py``: forq's model with llama.cpp's rounding of activations in front
of each matrix. The checkpoint's own logits are the file's without that rounding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import forq
from forq.checkpoints.containers.gguf import header, tokenizer
from forq.demo import CHECKPOINT
from forq.models.convert.quantize import quantize
from forq.models.load import load
from forq.models.space import space
from forq.scalars.moves import Move, Term, direction_seed
from tests import tiny_lm
from tests.awkward_lines import lines
from tests.oracles.llamacpp import ask
from tests.oracles.llamacpp.rounded import rounded
from tests.oracles.test_llamacpp_oracle import ROUNDED, SAME, gap
from tests.smollm2 import loss, tolerance

pytestmark = ask.pytestmark

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama, Q4_0": ({}, {}),
    "llama, Q5_0": ({"attention_bias": True, "mlp_bias": True}, {"sym": False}),
    "llama, Q8_0": ({"tie_word_embeddings": True}, {"bits": 8}),
    "llama 3, 3 bits": ({"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 64}}, {"bits": 3}),
    "mistral": ({"kind": "mistral", "sliding_window": None}, {"sym": False}),
    "qwen2": ({"kind": "qwen2"}, {}),
    "qwen3": ({"kind": "qwen3", "head_dim": 32}, {"sym": False}),
}
IDS = torch.randint(0, 300, (1, 16), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Every case as a GPTQ checkpoint whose scales moved, and as a GGUF file, scored by llama.cpp."""
    root, found = tmp_path_factory.mktemp("export"), {}
    for name, (settings, how) in CASES.items():
        sizes = {"hidden_size": 256, "intermediate_size": 192, "num_hidden_layers": 1, **settings}
        tiny_lm.model(**sizes).half().save_pretrained(root / name / "float")
        tiny_lm.tokenizer().save_pretrained(root / name / "float")
        quantize(root / name / "float", root / name / "gptq", group_size=32, **how)
        moving = space(load(root / name / "gptq", device="cpu"), "scales")
        moving.apply(Move((Term(direction_seed(0, 0), 0.05),)))
        moved = root / name / "moved"
        load(root / name / "gptq", device="cpu").checkpoint.save_patched(moved, moving.exported())
        assert forq.export(moved, root / name / "gguf", "gguf").changed == 0
        found[name] = (moved, root / name / "gguf" / "model.gguf")
    answers = ask.score([file for _, file in found.values()], ids=IDS[0].tolist(), exact=True, logits=True)
    assert all(answer["loss"] is not None for answer in answers.values())
    return found


@pytest.mark.parametrize("case", CASES)
def test_logits_are_llama_cpps(case: str, files: dict[str, tuple[Path, Path]], compared: Any) -> None:
    folder, file = files[case]
    with torch.no_grad():
        source = load(folder, device="cpu")(IDS).logits[0].numpy()
        plain = load(file, device="cpu", kernel="reference")(IDS).logits[0].numpy()
        ours = rounded(load(file, device="cpu", kernel="reference"))(IDS).logits[0].numpy()
    theirs = np.load(f"{file}.npy")
    assert gap(source, plain).max() < 1e-5
    compared("llama.cpp", SAME, np.median(gap(ours, theirs)))
    assert np.median(gap(ours, theirs)) < ROUNDED
    assert gap(ours, theirs).mean() < gap(plain, theirs).mean() / 2


def test_a_real_model_has_our_loss_and_tokens(tmp_path: Path, tinyshakespeare: str, compared: Any) -> None:
    forq.export(CHECKPOINT, tmp_path / "out", "gguf")
    file, count = tmp_path / "out" / "model.gguf", 200
    answer = ask.score([file], text=tinyshakespeare, count=count)[file]
    assert answer["ids"] == AutoTokenizer.from_pretrained(CHECKPOINT)(tinyshakespeare)["input_ids"][:count]
    off = abs(loss(load(CHECKPOINT, device="cpu"), answer["ids"]) - answer["loss"])
    compared("llama.cpp", f"loss of the demo's checkpoint, exported, on {count} tokens; nats", off)
    assert off < tolerance(count)


TOKENIZERS = ("demo", "llama3", "tekken", "mistral-v1", "mistral-v3")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Real vocabularies beside a tiny model: the folder, and llama.cpp's ids of odd lines by the exported file."""
    root, found = tmp_path_factory.mktemp("tokens"), {}
    real = [name for name in TOKENIZERS if name != "demo"]
    cases = {name: {"vocabulary": name, "every": 1 << 20} for name in real}
    ask.call("tokens.py", root, stdin=json.dumps({"lines": [], "cases": cases}))
    for name in real:
        built = tokenizer.tokenizer(root / f"{name}.gguf", header.read(root / f"{name}.gguf").values)
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": len(built)}
        tiny_lm.model(**sizes).half().save_pretrained(root / name / "float")
        built.save_pretrained(root / name / "float")
        quantize(root / name / "float", root / name / "gptq", group_size=32)
        forq.export(root / name / "gptq", root / name / "gguf", "gguf")
        found[name] = root / name / "gptq"
    forq.export(CHECKPOINT, root / "demo" / "gguf", "gguf")
    found["demo"] = CHECKPOINT
    files = {f"{name}-out": {"vocabulary": str(root / name / "gguf" / "model.gguf")} for name in found}
    ask.call("tokens.py", root, stdin=json.dumps({"lines": lines(), "cases": files}))
    return {name: (folder, json.loads((root / f"{name}-out.json").read_text())) for name, folder in found.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_are_the_checkpoints(name: str, answers: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    folder, answer = answers[name]
    own = AutoTokenizer.from_pretrained(folder)
    for line, ids in zip(lines(), answer["bare"], strict=True):
        assert own(line, add_special_tokens=False)["input_ids"] == ids, line
    for line, ids in zip(lines()[::10], answer["framed"], strict=True):
        assert own(line)["input_ids"] == ids, line
