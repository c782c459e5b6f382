"""The keys of an architecture in a GGUF file (``llama.block_count``, …), checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forq.errors import FormatError

_ONE_VALUE: Mapping[str, tuple[Any, str]] = {
    "attention.causal": (True, "a model whose attention looks back only"),
    "expert_count": (0, "a model without experts"),
    "expert_used_count": (0, "a model without experts"),
    "expert_group_count": (0, "a model without experts"),
    "nextn_predict_layers": (0, "a model without layers that predict further tokens"),
}
"""Keys of features that forq does not compute: the only accepted value, and its meaning for errors."""

READ = frozenset(
    {
        *_ONE_VALUE,
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scale_linear",
        "rope.scaling.attn_factor",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.type",
    }
)
"""Keys that affect the model's computation."""

_WITHOUT_EFFECT = frozenset({"vocab_size", "rope.scaling.finetuned", "tensor_data_layout", "use_parallel_residual"})
"""Keys that converters write and that have no effect for these architectures."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The values of one architecture.

    Attributes:
        path: the file, for messages.
        kind: the architecture, which is the first part of each key.
        values: all values of the header.
        followed: keys that this architecture follows, besides those of every architecture.
        only: keys of this architecture with one accepted value: the value, and its meaning for errors.
    """

    path: Path
    kind: str
    values: Mapping[str, object]
    followed: frozenset[str] = frozenset()
    only: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of ``kind.name``, unchecked."""
        return self.values.get(f"{self.kind}.{name}", default)

    def whole(self, name: str, default: int | None = None) -> int:
        """A positive integer. In a list with a number for each layer, all numbers must be equal.

        Raises:
            FormatError: the key is missing and has no default, or its value is no such number.
        """
        value = self.get(name, default)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if type(value) is not int or not 0 < value < 1 << 24:
            raise self.error("a whole number", name, value)
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """A positive number.

        Raises:
            FormatError: the key is missing and has no default, or its value is no such number.
        """
        value = self.get(name, default)
        if not isinstance(value, int | float) or not 0.0 < value < 1e12:
            raise self.error("a positive number", name, value)
        return float(value)

    def factor(self, name: str, usual: float) -> float:
        """A positive number; ``usual`` if the key is missing or 0, which llama.cpp reads alike.

        Raises:
            FormatError: its value is no such number.
        """
        return usual if self.get(name, 0.0) == 0.0 else self.real(name)

    def error(self, expected: str, name: str, value: Any) -> FormatError:
        """An error that names the key."""
        actual = "none" if value is None else f"{value!r:.80}"
        return FormatError(f"{self.path}: expected {expected} for {self.kind}.{name}, found {actual}")

    def check(self) -> None:
        """Refuse values that make llama.cpp compute something that forq does not.

        Raises:
            FormatError: a key has such a value; the message names the key.
        """
        for name, (only, meaning) in {**_ONE_VALUE, **self.only}.items():
            if (value := self.get(name, only)) != only:
                raise self.error(f"{meaning}, {only},", name, value)

    def unknown(self) -> list[str]:
        """Keys of the architecture that forq does not know, in alphabetical order."""
        names = (key.removeprefix(f"{self.kind}.") for key in self.values if key.startswith(f"{self.kind}."))
        known = READ | _WITHOUT_EFFECT | self.followed | self.only.keys()
        return sorted(f"{self.kind}.{name}" for name in names if name not in known)
