"""llama.cpp itself: the keys that an architecture has of its own are followed, or refused by name.

Files are of float32; where an architecture has GELU, forq's model looks it up as llama.cpp does
(``test_llamacpp_architectures_oracle.py`` says how far that agrees).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forq.checkpoints.containers.gguf.architectures import ARCHITECTURES
from forq.checkpoints.containers.gguf.keys import READ
from forq.errors import FormatError
from forq.models.load import load
from tests.fixtures.gguf_architectures import made, write
from tests.oracles.llamacpp import ask
from tests.oracles.llamacpp.rounded import looked_up
from tests.oracles.test_llamacpp_architectures_oracle import IDS, TABLE, gap, outputs

pytestmark = ask.pytestmark

YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
LINEAR = {"rope.scaling.factor": 2.0}
MAGNITUDE = {**YARN, "rope.scaling.attn_factor": 1.3}
WINDOW = "attention.sliding_window"
FOLLOWED: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, values) for name in ("gemma", "gemma2", "gemma3", "command-r", "cohere2") for values in (LINEAR, YARN)),
    *(
        (name, values)
        for name in ("olmo2", "olmo2, windows", "glm4", "smollm3", "granite")
        for values in (LINEAR, YARN)
    ),
    *((name, values) for name in ("stablelm", "phi2", "nemotron", "gptneox", "falcon") for values in (LINEAR, YARN)),
    *((name, MAGNITUDE) for name in ("gemma3", "cohere2", "olmo2, windows", "phi2")),
    *((name, {"rope.dimension_count": None}) for name in ("stablelm", "phi2", "phi3", "glm4", "nemotron", "gptneox")),
    *((name, {"rope.dimension_count": 6}) for name in ("stablelm", "phi2", "phi3", "glm4", "nemotron", "gptneox")),
    ("gemma2", {WINDOW: None}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    ("gemma2", {"attention.sliding_window_pattern": 3}),
    ("gemma2", {"attention.sliding_window_pattern": [True, False, True]}),
    ("gemma2", {"rope.freq_base_swa": 10000.0}),
    ("gemma3", {"attention.sliding_window_pattern": 3}),
    ("gemma3", {"rope.freq_base_swa": 5000.0}),
    ("gemma3", {"rope.freq_base": None}),
    ("gemma3", {WINDOW: None}),
    ("gemma3", {WINDOW: 0}),
    ("gemma3", {"final_logit_softcapping": 2.0}),
    ("gemma3", {"final_logit_softcapping": 20.0, WINDOW: None}),
    ("granite", {"embedding_scale": None}),
    ("granite", {"residual_scale": None}),
    ("granite", {"attention.scale": None}),
    ("granite", {"attention.scale": 0.0}),
    ("granite", {"rope.scaling.finetuned": True}),
    ("command-r", {"logit_scale": 0.0}),
    ("cohere2", {"logit_scale": 0.0}),
    ("cohere2", {"attention.sliding_window_pattern": 2}),
    ("cohere2", {"rope.freq_base_swa": 5000.0}),
    ("cohere2", {"attention.key_length_swa": 16}),
    ("olmo2, windows", {"attention.sliding_window_pattern": 2}),
    ("olmo2, windows", {"rope.freq_base_swa": 777.0}),
    ("phi3", {WINDOW: 4}),
    ("phi3", {"rope.scaling.type": "longrope"}),
    ("phi3", {"attention.key_length_swa": 8}),
    ("mpt", {"attention.clamp_kqv": None}),
    ("mpt", {"attention.clamp_kqv": 0.0}),
    ("bloom", {"attention.max_alibi_bias": 4.0}),
    ("gpt2", {"attention.layer_norm_epsilon": 0.1}),
    ("qwen2", {"attention.scale": 0.3}),
    ("smollm3", {"attention.scale": 0.3}),
    ("bert", {"attention.causal": None}),
)
REFUSED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gemma2", {"rope.freq_base_swa": 5000.0}),
    ("gemma2", {"attention.sliding_window_pattern": [True, True, False]}),
    ("gemma3", {"rope.dimension_count_swa": 8}),
    ("gemma3", {"attention.causal": False}),
    ("cohere2", {"rope.dimension_count": 8}),
    ("granite", {"rope.scaling.finetuned": False}),
    ("mpt", {"attention.max_alibi_bias": 4.0}),
    ("phi3", {"rope.scaling.factor": 4.0}),
    ("bert", {"attention.causal": True}),
    ("bert", {"pooling_type": 2}),
)
"""What llama.cpp computes and forq refuses, by the key."""
WITHOUT_EFFECT = {
    *("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa", "classifier.activation"),
    *("classifier.pooling_type", "embedding_length_out", "expert_group_used_count", "pooling_type"),
    *("rope.scaling.alpha", "rope.scaling.finetuned", "vocab_size"),
}
"""Keys that llama.cpp reads for every architecture, without effect where there is no window, classifier or expert."""


def score(files: dict[Path, str]) -> dict[Path, Any]:
    """llama.cpp's answers to files of rows."""
    settings: dict[str, Any] = {"ids": IDS[0].tolist(), "exact": True}
    encoders = [file for file, name in files.items() if name == "bert"]
    decoders = [file for file in files if file not in encoders]
    answers = ask.score(decoders, logits=True, **settings)
    return answers | ask.score(encoders, states=True, **settings) if encoders else answers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A file for each of FOLLOWED and REFUSED, in order, all scored."""
    root = tmp_path_factory.mktemp("keys")
    models = {name: made(name) for name, _ in (*FOLLOWED, *REFUSED)}
    written = [
        write(root / f"{turn}.gguf", name, models[name], values=values)
        for turn, (name, values) in enumerate((*FOLLOWED, *REFUSED))
    ]
    names = [name for name, _ in (*FOLLOWED, *REFUSED)]
    answers = score(dict(zip(written, names, strict=True)))
    assert all(answer["loss"] is not None for answer in answers.values())
    return written


def label(case: tuple[str, dict[str, Any]]) -> str:
    return f"{case[0]}, {case[1]}"


@pytest.mark.parametrize("turn", range(len(FOLLOWED)), ids=[label(case) for case in FOLLOWED])
def test_a_key_is_followed(turn: int, files: list[Path], compared: Any) -> None:
    theirs, ours = np.load(f"{files[turn]}.npy"), outputs(files[turn], looked_up)
    compared(
        "llama.cpp",
        "header keys of an architecture's own: logits; relative, median token",
        np.median(gap(ours, theirs)),
    )
    assert np.median(gap(ours, theirs)) < TABLE


@pytest.mark.parametrize("turn", range(len(REFUSED)), ids=[label(case) for case in REFUSED])
def test_a_key_is_refused_by_name(turn: int, files: list[Path]) -> None:
    (key,) = REFUSED[turn][1]
    with pytest.raises(FormatError, match=rf"for {REFUSED[turn][0].partition(',')[0]}\.{key}, found"):
        load(files[len(FOLLOWED) + turn], device="cpu")


def test_short_factors_divide_frequencies_as_in_llama_cpp(tmp_path: Path) -> None:
    """llama.cpp takes the long ones for a context beyond the original; forq says that it does not."""
    values = {"rope.scaling.original_context_length": 4096, "rope.scaling.attn_factor": 1.2, "context_length": 8192}
    factors = {
        f"rope_factors_{kind}.weight": np.linspace(1.0, last, 4) for kind, last in (("short", 2.0), ("long", 9.0))
    }
    file = write(tmp_path / "x.gguf", "phi3", made("phi3"), values=values, factors=factors)
    assert score({file: "phi3"})[file]["loss"] is not None
    assert gap(outputs(file), np.load(f"{file}.npy")).max() < 5e-6
    (note,) = load(file, device="cpu").unlike
    assert note.startswith("positions are rotated by the factors for texts of up to 4096 tokens")


def test_no_other_key_is_read(tmp_path: Path) -> None:
    """Values of an impossible type for all keys that an entry does not know: llama.cpp reads none of them."""
    keys = ask.call("keys.py").split()
    written: dict[Path, str] = {}
    for name, entry in ARCHITECTURES.items():
        known = READ | WITHOUT_EFFECT | entry.keys | entry.only.keys() | ({WINDOW} if name == "phi3" else set())
        values = {key: ["x"] for key in keys if key not in known}
        assert len(values) > 100
        written[write(tmp_path / f"{name}.gguf", name, made(name, layers=1), values=values)] = name
    answers = score(written)
    assert [written[file] for file, answer in answers.items() if answer["loss"] is None] == []


def test_every_key_of_an_entry_is_read(tmp_path: Path) -> None:
    written: dict[Path, str] = {}
    for name, entry in ARCHITECTURES.items():
        row = "olmo2, windows" if name == "olmo2" else name
        model = made(row, layers=1)
        for key in entry.keys | entry.only.keys():
            written[write(tmp_path / f"{name}-{key}.gguf", row, model, values={key: ["x"]})] = row
    answers = score(written)
    assert [file.name for file, answer in answers.items() if answer["loss"] is not None] == []
