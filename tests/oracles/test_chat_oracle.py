"""TRL's chat templates: our tokens are transformers', and what we learn is what TRL's masks mark.

TRL ships templates in pairs: the published one, and a variant with ``{% generation %}`` blocks that transformers turns
into TRL's assistant masks. Under the variant ours must be that mask, token by token. Under the published one ours is
compared with the variant's mask: the same turns, where TRL's blocks also take in the space behind a turn's end or the
turn's head. Build the environment with ``tests/oracles/chat/setup.sh``.
"""

from __future__ import annotations

import copy
import re
from functools import cache
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from forq.errors import DataError
from forq.tasks.chat.conversation import Conversations
from forq.tasks.chat.encoding import Edges, Row, encode
from forq.tasks.rows.record import Record
from forq.tokens.template import ChatTemplate
from tests import tiny_lm

ROOT = Path(__file__).parents[2] / ".venv-chat"
FOLDER = next(iter(ROOT.glob("lib/python*/site-packages/trl/chat_templates")), ROOT / "none")
TEMPLATES = {file.stem: file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.jinja"))}
PAIRS = [name for name in TEMPLATES if f"{name}_training" in TEMPLATES]
# Their blocks begin where the generation prompt ends.
SAME = ["cohere", "cohere2", "gemma", "gemma3", "lfm2", "lfm2_v2", "llama3", "phi3", "phi3_5", "qwen2_5_vl"]
SAME = [*SAME, "qwen3_instruct_2507", "qwen3_vl"]
SPECIAL = r"<[|｜][A-Za-z_▁0-9]+[|｜]>|</?s>|<(?:start|end)_of_turn>|<(?:bos|turn\|?|\|turn|end_of_utterance)>"

ASK = {"role": "user", "content": "What is 3+2?"}
GOOD, THOUGHT = {"role": "assistant", "content": "5"}, "<think>\nbad thought\n</think>\n\ngood 5"
NEXT = [{"role": "user", "content": "and 4?  \n"}, {"role": "assistant", "content": " good bad\n\n7 "}]
CALL = [{"type": "function", "function": {"name": "mul", "arguments": {"a": 2}}}]
CHATS: dict[str, list[dict[str, Any]]] = {
    "short": [ASK, GOOD],
    "system": [{"role": "system", "content": "film"}, ASK, GOOD],
    "long": [ASK, GOOD, *NEXT],
    "reasoning": [ASK, {"role": "assistant", "content": "good 5", "reasoning_content": "bad thought"}],
    "thought": [ASK, {"role": "assistant", "content": THOUGHT}],
    "earlier thought": [ASK, {"role": "assistant", "content": THOUGHT}, *NEXT],
    "tools": [
        ASK,
        {"role": "assistant", "content": "let me", "tool_calls": CALL},
        {"role": "tool", "name": "mul", "content": "6"},
        {"role": "assistant", "content": "six"},
    ],
    "question last": [ASK, GOOD, NEXT[0]],
}

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PAIRS, reason="no .venv-chat: build it with tests/oracles/chat/setup.sh"),
]


@cache
def tokenizer(bos: str, eos: str) -> Any:
    made = copy.deepcopy(tiny_lm.tokenizer(False))
    known = {token for text in TEMPLATES.values() for token in re.findall(SPECIAL, text)} | {bos, eos}
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in sorted(known)])
    made.add_special_tokens({"bos_token": bos, "eos_token": eos})
    return made


def of(name: str) -> Any:
    return tokenizer("<bos>" if "gemma" in name else "<s>", "<|endoftext|>" if "phi" in name else "</s>")


def ours(name: str, template: str, chat: list[dict[str, Any]]) -> tuple[Row, list[str]]:
    """A row as we encode it, and its learned texts."""
    asked = Conversations(ChatTemplate(of(name), template)).asked(Record({"messages": chat}, "row 1"))
    row = encode(asked, of(name), Edges((), None, None, frozenset()))
    stretches = groupby(asked.pieces, key=lambda piece: piece.scored)
    return row, ["".join(piece.text for piece in pieces) for scored, pieces in stretches if scored]


def theirs(name: str, template: str, chat: list[dict[str, Any]]) -> tuple[list[int], tuple[int, ...]]:
    """Tokens and marked places by transformers; skips what the template itself refuses."""
    try:
        found = of(name).apply_chat_template(
            chat, chat_template=template, return_dict=True, return_assistant_tokens_mask="generation" in template
        )
    except Exception as error:  # templates raise what they like
        pytest.skip(f"the template refuses it: {error}")
    return found["input_ids"], tuple(place for place, own in enumerate(found.get("assistant_masks", [])) if own)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", PAIRS)
def test_under_trls_own_templates_its_masks_are_learned(name: str, chat: str, compared: Any) -> None:
    template = TEMPLATES[f"{name}_training"]
    tokens, marked = theirs(name, template, CHATS[chat])
    row, _ = ours(name, template, CHATS[chat])
    compared("trl", "learned tokens of a conversation; tokens that differ", len({*row.scored} ^ {*marked}))
    assert list(row.tokens) == tokens and row.scored == marked


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", [name for name in TEMPLATES if not name.endswith("_training")])
def test_under_published_templates_the_same_turns_are_learned(name: str, chat: str, compared: Any) -> None:
    tokens, _ = theirs(name, TEMPLATES[name], CHATS[chat])
    try:
        row, texts = ours(name, TEMPLATES[name], CHATS[chat])
    except DataError as refused:
        # Turns inside other turns, turns whose content is not written, and templates that read lists of parts alone.
        assert "cannot be located exactly" in str(refused) or "writes the next turn before it" in str(refused)
        assert chat == "tools" or "smolvlm" in name or "idefics" in name or "nothink" in name, refused
        return
    different = sum(a != b for a, b in zip_longest(row.tokens, tokens))
    compared("transformers", "token ids of a conversation; tokens that differ", different)
    assert list(row.tokens) == tokens
    if name in PAIRS and name != "glm4moe":  # TRL adds an end to GLM's turns that the published template has not
        _, marked = ours(name, TEMPLATES[f"{name}_training"], CHATS[chat])
        ends = [re.sub(r"\s*(<\|endoftext\|>)?$", "", text) for text in marked if text.strip() != "<|endoftext|>"]
        assert len(texts) == len(ends)
        for text, end in zip(texts, ends, strict=True):
            assert text == end if name in SAME else end.endswith(text.strip())
