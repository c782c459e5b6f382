"""Rows as the model sees them: the tokens of its input, and which of them are learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forq.plugins import registry
from forq.tasks import completion, sst2
from forq.tasks.rows.segments import spellings
from tests import tiny_encoders, tiny_lm
from tests.contract.test_tasks import NAMES, SETTINGS

TOKENIZER = tiny_lm.tokenizer()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bos", [True, False])
def test_what_is_learned_is_what_the_loss_is_of(name: str, bos: bool, tmp_path: Path) -> None:
    module = registry.get("tasks", name)
    task = module.open(module.example(tmp_path), tiny_lm.tokenizer(bos), seed=0, **SETTINGS)
    row = task.rows["train"][0]
    segments = task.segments(row)
    learned = [
        token for segment in segments for token, mark in zip(segment.tokens, segment.learned, strict=True) if mark
    ]
    batch = task.pack([row])
    assert learned == batch.target.tolist()
    given = [token for segment in segments for token in segment.tokens]
    assert given[: len(segments[0].tokens) - 1] == batch.input_ids[0, : len(segments[0].tokens) - 1].tolist()


def test_of_an_option_the_right_one_is_named(tmp_path: Path) -> None:
    task = sst2.open(sst2.example(tmp_path), TOKENIZER, seed=0, **SETTINGS)
    for row in task.rows["train"][:5]:
        prompt, *options = task.segments(row)
        roles = [segment.role for segment in options]
        assert prompt.role == "prompt" and roles.index("right option") == row.label and len(set(roles)) == 2


@pytest.mark.parametrize("by", ["mask", "similarity"])
def test_of_an_encoders_row_the_mask_is_learned(by: str, tmp_path: Path) -> None:
    tokenizer = tiny_encoders.tokenizer()
    task = sst2.open(sst2.example(tmp_path), tokenizer, seed=0, kind="masked", by=by, **SETTINGS)
    row = task.rows["train"][0]
    (segment,) = task.segments(row)
    assert torch.equal(torch.tensor([segment.tokens]), task.pack([row]).input_ids)
    learned = [token for token, mark in zip(segment.tokens, segment.learned, strict=True) if mark]
    assert learned == ([tokenizer.mask_token_id] if by == "mask" else [])
    assert segment.role == f"right: {task.description['words' if by == 'mask' else 'sentences'][row.label]!r}"


def test_spaces_line_ends_specials_and_parts_of_characters_can_be_seen() -> None:
    text = "good film\n\t é\u200d"
    tokens = [0, *TOKENIZER(text, add_special_tokens=False)["input_ids"], 1]
    found = spellings(TOKENIZER, tokens)
    assert found[0] == "'<s>'" and found[-1] == "'</s>'"
    assert any(spelled.startswith("' f") for spelled in found) and r"'\n'" in found and r"'\t'" in found
    assert all(spelled.isprintable() and spelled for spelled in found)
    parts = spellings(TOKENIZER, TOKENIZER("🙂", add_special_tokens=False)["input_ids"])
    assert len(parts) == 4 and not any(spelled.startswith("'") for spelled in parts)


def test_a_row_that_was_cut_shows_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "' + "film " * 40 + '", "completion": " good"}\n' * 1)
    lines = (tmp_path / "rows.jsonl").read_text() * 5
    (tmp_path / "rows.jsonl").write_text(lines)
    task = completion.open(tmp_path / "rows.jsonl", TOKENIZER, seed=0, max_length=12)
    row = task.rows["train"][0]
    (segment,) = task.segments(row)
    assert len(segment.tokens) == 12 and segment.tokens[0] == 0 and task.lost(row) > 0
