"""Run in .venv-llamacpp: real vocabularies, and one that shows every split, as GGUF files without tensors.

The converters of llama.cpp decide what such a file holds; gguf-py writes it.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf

PACKAGES = Path(gguf.__file__).parents[1]
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What stands under tokenizer.ggml in a file."""

    model: str
    tokens: Sequence[str]
    types: Sequence[int]
    values: Mapping[str, Any] = field(default_factory=dict)
    merges: Sequence[str] | None = None
    scores: Sequence[float] | None = None

    def write(self, path: Path, **changes: Any) -> Path:
        """Write the file; ``changes`` are further values by their names under tokenizer.ggml, None removes one."""
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model(self.model)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.types))
        if self.merges is not None:
            writer.add_token_merges(list(self.merges))
        if self.scores is not None:
            writer.add_token_scores(list(self.scores))
        add: dict[type, Callable[[str, Any], None]] = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            str: writer.add_string,
        }
        for name, value in {**self.values, **changes}.items():
            if value is not None:
                key = name if name.startswith("general.") else f"tokenizer.ggml.{name}"
                add[type(value)](key, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return path


def _letters() -> dict[int, str]:
    """The character that stands for each byte in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


_LETTERS = _letters()


def spelt(raw: bytes) -> str:
    """Bytes as a byte-level vocabulary spells them."""
    return "".join(_LETTERS[byte] for byte in raw)


def _halves(raw: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The two tokens that a token is merged from: what merging its bytes gives just before it."""
    parts = [raw[place : place + 1] for place in range(len(raw))]
    while True:
        pairs = ((ranks.get(parts[at] + parts[at + 1], ranks[raw]), at) for at in range(len(parts) - 1))
        rank, at = min(pairs, default=(ranks[raw], 0))
        if rank >= ranks[raw]:
            return parts
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def _merges(ranks: Mapping[bytes, int]) -> list[str]:
    halves = (_halves(raw, ranks) for raw in ranks if len(raw) > 1)
    return [" ".join(map(spelt, pair)) for pair in halves if len(pair) == 2]


def llama3() -> Vocabulary:
    """Llama 3's, from the file in the package llama-models."""
    lines = (PACKAGES / "llama_models" / "llama3" / "tokenizer.model").read_bytes().split()
    ranks = {base64.b64decode(raw): int(rank) for raw, rank in zip(lines[::2], lines[1::2], strict=True)}
    named = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id"}
    named |= {7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}
    control = [f"<|{named.get(place, f'reserved_special_token_{place}')}|>" for place in range(256)]
    tokens = [*map(spelt, ranks), *control]
    types = [NORMAL] * len(ranks) + [CONTROL] * 256
    ids = {"pre": "llama-bpe", "bos_token_id": len(ranks), "eos_token_id": len(ranks) + 9}
    return Vocabulary("gpt2", tokens, types, ids, _merges(ranks))


def tekken() -> Vocabulary:
    """Mistral's tekken, from the file in the package mistral-common."""
    held = json.loads((PACKAGES / "mistral_common" / "data" / "tekken_240911.json").read_text())
    count = held["config"]["default_num_special_tokens"]
    entries = held["vocab"][: held["config"]["default_vocab_size"] - count]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in entries}
    named = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
    control = [*named, *(f"<SPECIAL_{place}>" for place in range(len(named), count))]
    ids = {"pre": "tekken", "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    types = [CONTROL] * count + [NORMAL] * len(ranks)
    return Vocabulary("gpt2", [*control, *map(spelt, ranks)], types, ids, _merges(ranks))


def mistral(version: str) -> Vocabulary:
    """Mistral's SentencePiece vocabularies, v1, v2, v3 and v7, from the files in the package mistral-common."""
    from sentencepiece import SentencePieceProcessor

    (file,) = (PACKAGES / "mistral_common" / "data").glob(f"*.model.{version}")
    held = SentencePieceProcessor(model_file=str(file))
    size = range(held.vocab_size())
    kinds = [(held.IsUnknown, UNKNOWN), (held.IsControl, CONTROL), (held.IsUnused, UNUSED), (held.IsByte, BYTE)]
    types = [next((kind for asks, kind in kinds if asks(place)), NORMAL) for place in size]
    tokens = [held.IdToPiece(place) for place in size]
    scores = [held.GetScore(place) for place in size]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return Vocabulary("llama", tokens, types, ids, scores=scores)


def pairs() -> Vocabulary:
    """All bytes and all pairs of bytes, merged in an order drawn at random: tokens show where a text was split.

    A few words are tokens that no merge leads to, for kinds that take whole words before they merge.
    """
    letters = [spelt(bytes([byte])) for byte in range(256)]
    merges = [f"{first} {second}" for first in letters for second in letters]
    random.Random(0).shuffle(merges)
    whole = [spelt(word.encode()) for word in ("the", " the", "naïve", "123", "...", "\n\n\n", "   ")]
    control = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokens = [*control, *letters, *(merge.replace(" ", "") for merge in merges), *whole]
    types = [CONTROL] * len(control) + [NORMAL] * (len(tokens) - len(control))
    return Vocabulary("gpt2", tokens, types, {"bos_token_id": 0, "eos_token_id": 1}, merges)


def raw_pairs() -> Vocabulary:
    """Mistral's first vocabulary as a table of merges over plain text, for kinds that do not spell bytes."""
    base = mistral("v1")
    score = dict(zip(base.tokens, base.scores or (), strict=True))
    merges = [
        (-score[token], f"{token[:at]} {token[at:]}")
        for token, kind in zip(base.tokens, base.types, strict=True)
        if kind == NORMAL
        for at in range(1, len(token))
        if token[:at] in score and token[at:] in score
    ]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return Vocabulary("gpt2", base.tokens, base.types, ids, [merge for _, merge in sorted(merges)])
