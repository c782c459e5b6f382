"""llama.cpp applies what ``forq export --to gguf-lora`` writes, and computes our model with the adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forq
from forq.models.adapters import peft
from forq.models.convert.quantize import quantize
from forq.models.load import load
from forq.models.space import space
from forq.scalars.moves import Move, Term
from tests import tiny_lm
from tests.oracles.gguf.blocks import Q
from tests.oracles.llamacpp import ask
from tests.oracles.llamacpp.make import write
from tests.oracles.llamacpp.rounded import rounded
from tests.oracles.test_llamacpp_oracle import EXACT, IDS, ROUNDED, SAME, gap

pytestmark = ask.pytestmark

CASES: dict[str, dict[str, Any]] = {
    "llama": {"types": [Q.F32]},
    "qwen3": {"types": [Q.F32], "kind": "qwen3"},
    "own-alphas": {"types": [Q.F32]},
    "quantized": {"types": [Q.Q4_K, Q.Q8_0, Q.IQ4_XS]},
    "safetensors": {},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """A GGUF file and a PEFT adapter for each case; llama.cpp's logits are beside the file, without and with it."""
    root, found, adapters = tmp_path_factory.mktemp("lora"), {}, {}
    for name, settings in CASES.items():
        file, base = root / name / "made.gguf", root / name / "made.gguf"
        if settings:
            write(file, layers=1, **settings)
        else:
            tiny_lm.model(hidden_size=256, intermediate_size=192, num_hidden_layers=1).half().save_pretrained(
                root / name / "float"
            )
            tiny_lm.tokenizer().save_pretrained(root / name / "float")
            base = quantize(root / name / "float", root / name / "gptq", group_size=32).path
            forq.export(base, root / name / "gguf", "gguf")
            file = root / name / "gguf" / "model.gguf"
        model = load(base, device="cpu", kernel="reference")
        forq.add_lora(model, rank=4, targets=("q_proj", "k_proj", "v_proj", "down_proj"))
        moving = space(model, "lora", "spread")
        moving.apply(Move((Term(3, 1.0, "rademacher"),)))
        folder = root / name / "adapter"
        peft.write(folder, model.checkpoint, model.adapters, moving.exported())
        if name == "own-alphas":
            config = json.loads((folder / peft.CONFIG).read_text())
            config |= {"alpha_pattern": {"k_proj": 3, "down_proj": 40}, "use_rslora": True}
            (folder / peft.CONFIG).write_text(json.dumps(config))
        done = forq.export(base, root / name / "lora", "gguf-lora", adapter=folder)
        assert done.layers == 4 and ("beside it" in done.notes[0]) == (base.suffix != ".gguf")
        # A link, so that each has logits of its own.
        (file.parent / "with.gguf").hardlink_to(file)
        found[name] = (file, folder)
        adapters[str(file.parent / "with.gguf")] = str(root / name / "lora" / "adapter.gguf")
    every = [path for file, _ in found.values() for path in (file, file.parent / "with.gguf")]
    answers = ask.score(every, ids=IDS[0].tolist(), exact=True, logits=True, adapters=adapters)
    assert all(answer["loss"] is not None for answer in answers.values())
    return found


@pytest.mark.parametrize("case", CASES)
def test_logits_are_llama_cpps(case: str, files: dict[str, tuple[Path, Path]], compared: Any) -> None:
    file, folder = files[case]
    with torch.no_grad():
        plain = load(file, device="cpu", kernel="reference", adapter=folder)(IDS).logits[0].numpy()
        ours = rounded(load(file, device="cpu", kernel="reference", adapter=folder))(IDS).logits[0].numpy()
    before, theirs = np.load(f"{file}.npy"), np.load(f"{file.parent / 'with.gguf'}.npy")
    assert gap(before, theirs).max() > 0.01
    if CASES[case].get("types") == [Q.F32]:
        compared("llama.cpp", "logits of float32 files with an adapter; relative", gap(plain, theirs).max())
        assert gap(plain, theirs).max() < EXACT
    else:
        compared("llama.cpp", SAME, np.median(gap(ours, theirs)))
        assert np.median(gap(ours, theirs)) < ROUNDED
        assert gap(ours, theirs).mean() < gap(plain, theirs).mean() / 2
