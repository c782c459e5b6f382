"""Tokenizers made from a GGUF's own values. The ids are llama.cpp's (xllamacpp 2026.10.11549), kept as data."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf import tokenizer as module
from forq.checkpoints.containers.gguf.pretokenizer import SPLITTINGS
from forq.checkpoints.containers.gguf.tokenizer import tokenizer
from forq.checkpoints.containers.gguf.vocabulary import configured, read
from forq.errors import FormatError
from forq.models.load import load
from tests.fixtures import gguf
from tests.unit.formats.test_gguf import again

FILE = Path("model.gguf")
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda letter: (ord(letter) > 255, letter))
# A byte's letter is the byte itself where it can be printed, and one from 256 on, in order, where it cannot.
BYTES = {ord(letter): letter for letter in LETTERS if ord(letter) < 256}
BYTES |= dict(zip((byte for byte in range(256) if byte not in BYTES), LETTERS[len(BYTES) :], strict=True))
MERGES = ["t h", "th e", "Ġ th", "Ġth e", "1 2", "12 3", "Ġ 1", "' s", "! !", "n n", "Ċ Ċ", "u n", "un d", "Ã ©"]
WORDS = [merge.replace(" ", "") for merge in MERGES]
PAIRS = {
    "model": "gpt2",
    "pre": "gpt-2",
    "tokens": ["<s>", "</s>", "<｜User｜>", "own", "<gap>", *(BYTES[byte] for byte in range(256)), *WORDS],
    "token_type": [3, 3, 3, 4, 5, *[1] * (256 + len(WORDS))],
    "merges": MERGES,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECES += ["▁", "t", "h", "e", "▁t", "he", "▁the", "n", "▁then", "d", "[", "]", "▁[", "▁▁", "[INST]"]
SCORED = {
    "model": "llama",
    "tokens": PIECES,
    "scores": [-float(place) for place in range(len(PIECES))],
    "token_type": [2, 3, 3, *[6] * 256, *[1] * (len(PIECES) - 260), 3],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
}
TEXTS = ["the the!!", "12345", "it's", "IT'S", " \n\nthe", "<｜User｜>the own1", "und 1", "é<gap>", ""]
BY_PRE = {
    "gpt-2": [[262, 37, 262, 269], [266, 57, 58], [110, 121, 268], [78, 89, 44, 88], [37, 15, 15, 262]],
    "smollm": [[262, 37, 262, 269], [54, 55, 56, 57, 58], [110, 121, 268], [78, 89, 44, 88], [37, 15, 15, 262]],
    "qwen2": [[262, 37, 262, 269], [54, 55, 56, 57, 58], [110, 121, 268], [78, 89, 44, 88], [37, 271, 262]],
    "llama-bpe": [[262, 264, 269], [266, 57, 58], [110, 121, 268], [78, 89, 44, 88], [37, 271, 262]],
    "tekken": [[262, 264, 269], [54, 55, 56, 57, 58], [110, 121, 268], [78, 89, 44, 88], [37, 271, 262]],
}
BEHIND = [[2, 262, 37, 3, 54], [273, 37, 54], [274, 65, 108, 102, 117, 67], []]
BY_PRE = {pre: ids + BEHIND for pre, ids in BY_PRE.items()}
BY_PRE["gpt-2"][6] = [273, 267]


def values(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A header's values; ``changes`` to None remove a key."""
    held = {**base, **changes}
    return {f"tokenizer.ggml.{key}": value for key, value in held.items() if value is not None}


@pytest.mark.parametrize("pre", BY_PRE)
def test_text_is_cut_by_the_files_own_kind(pre: str) -> None:
    made = tokenizer(FILE, values(PAIRS, pre=pre))
    assert [made(text, add_special_tokens=False)["input_ids"] for text in TEXTS] == BY_PRE[pre]
    begins = [0] if pre in ("llama-bpe", "tekken") else []
    assert [made(text)["input_ids"] for text in TEXTS] == [begins + ids for ids in BY_PRE[pre]]
    assert [made.decode(ids) for ids in BY_PRE[pre]] == TEXTS


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, [[1, 265, 267, 36], [1, 259, 265], [1, 2, 271, 260, 264], [1, 2, 259, 265], [1, 273, 265, 273, 259, 267]]),
        (
            {"add_space_prefix": False},
            [[1, 260, 264, 267, 36], [1, 265], [1, 2, 269, 260, 264], [1, 2, 265], [1, 273, 260, 264, 273, 267]],
        ),
        (
            {"add_bos_token": False, "add_eos_token": True},
            [[265, 267, 36, 2], [259, 265, 2], [2, 271, 260, 264, 2], [2, 259, 265, 2], [273, 265, 273, 259, 267, 2]],
        ),
    ],
)
def test_pieces_merge_by_score_and_begin_with_a_space_behind_every_special_token(
    changes: dict[str, Any], want: list[list[int]]
) -> None:
    made = tokenizer(FILE, values(SCORED, **changes))
    texts = ["the then!", " the", "</s>[the", "</s> the", "[INST]the[INST] then"]
    assert [made(text)["input_ids"] for text in texts] == want
    assert made("é", add_special_tokens=False)["input_ids"][-2:] == [198, 172]
    plain = [made(text, add_special_tokens=False)["input_ids"] for text in ("the then!", " the")]
    assert [made.decode(ids) for ids in plain] == ["the then!", " the"]


@pytest.mark.parametrize(
    ("base", "changes", "bos", "ends", "framed"),
    [
        (PAIRS, {}, "<s>", [1], [262]),
        (PAIRS, {"pre": "llama-bpe", "add_bos_token": False}, "<s>", [1], [262]),
        (PAIRS, {"pre": "llama-bpe", "bos_token_id": None}, None, [1], [11, 262]),  # llama.cpp assumes 11
        (PAIRS, {"pre": "llama-bpe", "bos_token_id": 9999}, None, [1], [11, 262]),
        (PAIRS, {"eos_token_id": 9999, "add_eos_token": True}, "<s>", [11, 1], [262, 11]),
        (SCORED, {"bos_token_id": None, "eos_token_id": None}, "<s>", [2], [1, 265]),
    ],
)
def test_missing_and_impossible_ids_are_llamacpps(
    base: dict[str, Any], changes: dict[str, Any], bos: str | None, ends: list[int], framed: list[int]
) -> None:
    held = values(base, **changes)
    made = tokenizer(FILE, held)
    assert made("the")["input_ids"] == framed and made.bos_token == bos
    assert list(read(FILE, held).ends) == ends
    assert bool(made.notes) == (bos is None or 11 in ends)
    if 9999 in changes.values():
        assert "beyond the 275 tokens" in made.notes[0]


def test_a_file_without_a_kind_of_splitting_is_told_to_the_user() -> None:
    (note,) = tokenizer(FILE, values(PAIRS, pre=None)).notes
    assert "no tokenizer.ggml.pre" in note and "'default'" in note


def test_what_llamacpp_would_decide_by_place_is_told_to_the_user() -> None:
    assert tokenizer(FILE, values(SCORED)).notes == ()
    (tied,) = tokenizer(FILE, values(SCORED, scores=[0.0] * len(PIECES))).notes
    assert "equal scores: 4;" in tied
    (whole,) = tokenizer(FILE, values(SCORED, tokens=[*PIECES[:-2], "né", "[INST]"])).notes
    assert "no token of its own: 1;" in whole
    (bytes_,) = tokenizer(FILE, values(SCORED, tokens=[*PIECES[:3], "zzz", *PIECES[4:]])).notes
    assert "bytes without a token: 1;" in bytes_
    (overlaps,) = tokenizer(FILE, values(PAIRS, tokens=["<s>", "</s>", "a<s", *PAIRS["tokens"][3:]])).notes
    assert "'a<s' and '<s>' overlap" in overlaps


def test_spellings_that_end_a_generation_are_special_whatever_their_type() -> None:
    tokens = [*PAIRS["tokens"], "<|im_end|>", "<|endoftext|>", "<|channel|>"]
    held = values(PAIRS, tokens=tokens, token_type=[*PAIRS["token_type"], 1, 3, 3])
    assert read(FILE, held).ends == (1, 275, 276)
    made = tokenizer(FILE, held)
    assert made("the<|im_end|>", add_special_tokens=False)["input_ids"] == [262, 275]
    assert made.decode([262, 275, 277], skip_special_tokens=True) == "the<|channel|>"
    assert configured(FILE, held, rows=276)["eos_token_id"] == [1, 275]
    assert configured(FILE, held, rows=2) == {"bos_token_id": 0, "pad_token_id": None, "eos_token_id": 1}


def test_tokens_of_phi_3_take_the_spaces_behind_them() -> None:
    held = values(SCORED) | {"general.name": "Phi-3 mini"}
    assert tokenizer(FILE, held)("[INST] \n the", add_special_tokens=False)["input_ids"] == [273, 265]


def test_chat_templates_are_the_files() -> None:
    key = "tokenizer.chat_template"
    one = tokenizer(FILE, values(PAIRS) | {key: "{{ messages[0].content }}"})
    assert one.apply_chat_template([{"role": "user", "content": "then"}], tokenize=False) == "then"
    two = tokenizer(FILE, values(PAIRS) | {key: "a", f"{key}.tool_use": "b", f"{key}s": ["tool_use"]})
    assert two.chat_template == {"default": "a", "tool_use": "b"}
    with pytest.raises(FormatError, match="chat_template: expected a text"):
        tokenizer(FILE, values(PAIRS) | {key: 3})


@pytest.mark.parametrize("base", [PAIRS | {"pre": "llama-bpe"}, SCORED, SCORED | {"add_space_prefix": False}])
def test_a_saved_tokenizer_gives_the_same_ids(base: dict[str, Any], tmp_path: Path) -> None:
    made = tokenizer(FILE, values(base) | {"tokenizer.chat_template": "{{ bos_token }}"})
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "</s>[the", " the then", "[INST] the"]:
        for framed in (True, False):
            assert made(text, add_special_tokens=framed) == loaded(text, add_special_tokens=framed)
    assert (loaded.bos_token_id, loaded.eos_token_id) == (made.bos_token_id, made.eos_token_id)
    assert loaded.chat_template == made.chat_template


def test_a_model_ends_a_generation_where_llamacpp_does(tmp_path: Path) -> None:
    path = gguf.example(tmp_path / "a")
    tokens = ["<s>", "</s>", "<|im_end|>", "<|endoftext|>", *(BYTES[byte] for byte in range(33, 93))]
    tokens[-1] = "!!"
    held = values(PAIRS, tokens=tokens, token_type=[3, 3, 1, 3, *[1] * 60], merges=["! !"])
    ckpt = Checkpoint.open(again(path, lambda theirs, _: theirs.update(held)))
    assert ckpt.config["eos_token_id"] == [1, 2, 3] and ckpt.config["bos_token_id"] == 0
    assert load(path, device="cpu").generation_config.eos_token_id == [1, 2, 3]  # type: ignore[union-attr]
    made = ckpt.contents.tokenizer
    assert made is not None and made()("!!!<|im_end|>")["input_ids"] == [63, 4, 2]


@pytest.mark.parametrize(
    ("base", "changes", "said"),
    [
        (PAIRS, {"model": None}, "ggml.model: expected a vocabulary of kind gpt2, llama"),
        (PAIRS, {"model": "bert"}, "ggml.model: .* found 'bert'"),
        (PAIRS, {"model": ["gpt2"]}, "ggml.model"),
        (PAIRS, {"pre": "nonsense"}, "ggml.pre: .* found 'nonsense'"),
        (PAIRS, {"pre": 3}, "ggml.pre: .* found 3"),
        (PAIRS, {"tokens": None}, "ggml.tokens: expected 1 entries, found 0"),
        (PAIRS, {"tokens": []}, "ggml.tokens"),
        (PAIRS, {"tokens": "a b"}, "ggml.tokens: expected a list of str"),
        (PAIRS, {"tokens": [*PAIRS["tokens"][:-1], 3]}, "ggml.tokens: expected a list of str"),
        (PAIRS, {"tokens": [*PAIRS["tokens"][:-1], "the"]}, "'the' at 262 and 274"),
        (PAIRS, {"token_type": [1, 2]}, "ggml.token_type: expected 275 entries, found 2"),
        (PAIRS, {"token_type": [1.0] * 275}, "ggml.token_type: expected a list of int"),
        (PAIRS, {"merges": None}, "ggml.merges: expected a list of pairs"),
        (PAIRS, {"merges": ["th"]}, "ggml.merges: .* found 'th' at 0"),
        (PAIRS, {"merges": ["t h", "th zz"]}, "ggml.merges: .* found 'th zz' at 1"),
        (PAIRS, {"merges": [1]}, "ggml.merges: expected a list of str"),
        (PAIRS, {"bos_token_id": "0"}, "ggml.bos_token_id"),
        (PAIRS, {"add_bos_token": 1}, "ggml.add_bos_token: expected true or false"),
        (PAIRS, {"pre": "glm4", "bos_token_id": None, "add_bos_token": True}, "ggml.bos_token_id: expected an id"),
        (SCORED, {"scores": None}, "ggml.scores: expected 274 entries"),
        (SCORED, {"scores": [0.0]}, "ggml.scores: expected 274 entries, found 1"),
        (SCORED, {"scores": [float("nan")] * 274}, "ggml.scores: expected finite"),
        (SCORED, {"add_space_prefix": "no"}, "ggml.add_space_prefix"),
    ],
)
def test_a_damaged_vocabulary_is_refused_by_file_and_key(
    base: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(FormatError, match=rf"model\.gguf: tokenizer\..*{said.removeprefix('ggml.')}"):
        tokenizer(FILE, values(base, **changes))


def test_a_vocabulary_that_cannot_be_read_names_no_ids() -> None:
    nothing = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    assert configured(FILE, values(PAIRS, tokens=None), 999) == nothing


def test_every_kind_of_splitting_loses_no_character() -> None:
    draw = random.Random(3)
    texts = [
        "".join(chr(draw.choice((32, 97, 49, 39, 10, 0x3042, 0x4E2D, 0x301, 0x1F600))) for _ in range(40))
        for _ in range(3)
    ]
    for pre, splitting in SPLITTINGS.items():
        if splitting.spells_bytes:
            made = tokenizer(FILE, values(PAIRS, pre=pre))
            for text in texts:
                assert made.decode(made(text, add_special_tokens=False)["input_ids"]) == text, pre


def test_a_vocabulary_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers takes a deep copy of a tokenizer that it is given: 320 MB more for Gemma's vocabulary."""
    built: list[object] = []

    class Kept(module._Uncopied):
        def __init__(self, one: Any) -> None:
            super().__init__(one)
            built.append(one)

    monkeypatch.setattr(module, "_Uncopied", Kept)
    values = {f"tokenizer.ggml.{key}": value for key, value in PAIRS.items()}
    assert module.tokenizer(FILE, values)._tokenizer is built[0]
