"""Two hundred damaged rows, chat templates and tokenizer files; ``make fuzz-rows`` tries a thousand."""

from __future__ import annotations

from tests.fuzz_rows import fuzz


def test_200_damaged_rows_templates_and_tokenizers_are_refused_or_open() -> None:
    refused, taken = fuzz(200, seed=0)
    assert refused > 40 and taken > 40  # else the damage is done where nothing looks, or nothing gets through
