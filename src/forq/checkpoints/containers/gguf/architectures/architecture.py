"""What an entry of the table of GGUF architectures says, and what it sees of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf import rope as _gguf_rope
from forq.checkpoints.containers.gguf.keys import Keys
from forq.errors import FormatError

INSIDE = re.compile(r"blk\.(\d{1,6})\.(\w+)\.(weight|bias)")
"""A tensor of a block, by its name in the file: the block, the part, and which of its tensors."""

RowOrder = Callable[[int], Tensor]
"""See :class:`~forq.checkpoints.tensor.TensorInfo`."""


@dataclass(frozen=True, slots=True)
class Described:
    """A file's header, as an entry of the table sees it.

    Attributes:
        keys: the values of the architecture.
        shapes: the tensors' shapes by the names in the file, innermost dimension last.
    """

    keys: Keys
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def width(self) -> int:
        """Width of the hidden state."""
        return self.keys.whole("embedding_length")

    @property
    def layers(self) -> int:
        """Number of blocks.

        Raises:
            FormatError: the file has fewer tensors than that.
        """
        layers = self.keys.whole("block_count")
        if layers > len(self.shapes):
            raise FormatError(
                f"{self.keys.path}: expected at least {layers} tensors, one a layer, found {len(self.shapes)}"
            )
        return layers

    @property
    def heads(self) -> int:
        """Number of heads of the queries."""
        return self.keys.whole("attention.head_count")

    @property
    def kv_heads(self) -> int:
        """Number of heads of keys and values."""
        return self.keys.whole("attention.head_count_kv", self.heads)

    @property
    def head(self) -> int:
        """Width of a head.

        Raises:
            FormatError: the heads of the values have another width.
        """
        usual = max(self.width // self.heads, 1)
        head = self.keys.whole("attention.key_length", usual)
        if (value_width := self.keys.whole("attention.value_length", usual)) != head:
            raise self.keys.error(f"{head}, as attention.key_length", "attention.value_length", value_width)
        return head

    @property
    def whole_width(self) -> int:
        """Width of the hidden state, for a model whose heads together are as wide.

        Raises:
            FormatError: they are not.
        """
        if self.heads * self.head != self.width:
            expected = f"a number of heads that are {self.width} wide together, as embedding_length,"
            raise self.keys.error(expected, "attention.head_count", self.heads)
        return self.width

    @property
    def hidden(self) -> int:
        """Width inside the feed-forward layers."""
        return self.keys.whole("feed_forward_length")

    @property
    def context(self) -> int:
        """Number of positions."""
        return self.keys.whole("context_length")

    def has(self, name: str) -> bool:
        """Whether the file has a tensor of that name."""
        return name in self.shapes

    def rope(self, *, partial: bool = False, by_factors: bool = False) -> dict[str, Any]:
        """Rotary settings: :func:`forq.checkpoints.containers.gguf.rope.settings`."""
        return _gguf_rope.settings(self.keys, self.head, self.context, partial=partial, by_factors=by_factors)


@dataclass(frozen=True, slots=True)
class Architecture:
    """An entry of the table: how files of one ``general.architecture`` become a model of transformers.

    Attributes:
        model_type: transformers' name of the family.
        head: transformers' class.
        settings: the values of config.json that depend on the file; those every model has are added.
        outside: transformers' names of the tensors outside the blocks, by the names in the file,
            both without ``.weight`` and ``.bias``.
        inside: the same inside the blocks, without ``blk.N.`` and ``block``. Several names share the
            rows of a fused matrix of queries, keys and values. A name with ``{head}`` stands for one tensor
            a row.
        block: the beginning of the names inside block ``{}``.
        choose: other names inside the blocks that depend on the file.
        orders: the order of a tensor's rows in the file, by its name inside the block; see
            :class:`Interleaved` and :class:`Together`.
        turned: tensors that transformers stores transposed, by their names inside the block.
        norms_added: a number that the file's weights of norms are larger by than transformers'.
        keys: keys that the entry follows, besides those of every architecture.
        only: keys that have one accepted value: the value, and its meaning for errors.
        factors: name of the tensor that divides the rotary frequencies, where the file has it.
        ignored: tensors that nothing reads.
        local_magnitude: whether the factor of cosine and sine applies to blocks with a sliding window too.
        notes: sentences on what a model of the file does otherwise than llama.cpp.
    """

    model_type: str
    head: str
    settings: Callable[[Described], dict[str, Any]]
    outside: Mapping[str, str]
    inside: Mapping[str, str | tuple[str, ...]]
    block: str = "model.layers.{}."
    choose: Callable[[Described], Mapping[str, str]] = lambda file: {}
    orders: Mapping[str, Callable[[Described], RowOrder]] = field(default_factory=dict)
    turned: frozenset[str] = frozenset()
    norms_added: float = 0.0
    keys: frozenset[str] = frozenset()
    only: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    factors: str = "rope_freqs.weight"
    ignored: frozenset[str] = frozenset()
    local_magnitude: bool = True
    notes: Callable[[Described], tuple[str, ...]] = lambda file: ()

    def place(self, name: str, chosen: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """transformers' names of a tensor. An unknown tensor keeps its name, which no parameter has.

        Args:
            chosen: what :attr:`choose` says of the file.
        """
        inside, named = INSIDE.fullmatch(name), {**self.inside, **(chosen or {})}
        if inside is not None and inside[2] in named:
            places, block = named[inside[2]], self.block.format(inside[1])
            return tuple(f"{block}{place}.{inside[3]}" for place in ([places] if isinstance(places, str) else places))
        head, _, own = name.rpartition(".")
        return (f"{self.outside[head]}.{own}",) if head in self.outside else (name,)


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Row order of heads whose two halves are interleaved: a row of the first half, one of the second, …

    llama.cpp rotates neighbouring rows where transformers rotates halves. Files of Llama models store
    the rows of queries and keys in this order; files of most others do not, and llama.cpp knows which.
    """

    heads: int

    def __call__(self, rows: int) -> Tensor:
        return torch.arange(rows).view(self.heads, rows // self.heads // 2, 2).transpose(1, 2).reshape(-1)


@dataclass(frozen=True, slots=True)
class Together:
    """Row order of a fused matrix: the file stores all queries, all keys, all values; transformers them by group.

    Attributes:
        heads: number of heads of the queries.
        groups: number of heads of the keys and of the values, and so of groups.
    """

    heads: int
    groups: int

    def __call__(self, rows: int) -> Tensor:
        width = rows // (self.heads + 2 * self.groups)
        each = torch.split(torch.arange(rows), [self.heads * width, self.groups * width, self.groups * width])
        return torch.cat([part.view(self.groups, -1) for part in each], dim=1).reshape(-1)


def interleaved(heads: Callable[[Described], int]) -> Callable[[Described], RowOrder]:
    """The order :class:`Interleaved` for as many heads as a file has."""
    return lambda file: Interleaved(heads(file))


def together(file: Described) -> RowOrder:
    """The order :class:`Together` for a file's heads."""
    return Together(file.heads, file.kv_heads)
