"""Token ids from texts, chat templates and batches. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that tasks use."""

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True
    ) -> Mapping[str, list[int]]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str: ...

    def convert_tokens_to_ids(self, token: str) -> int | None: ...
