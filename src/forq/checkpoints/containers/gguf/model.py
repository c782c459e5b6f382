"""Translate a GGUF file to transformers, by its entry in the table of architectures: configuration, names, rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forq.checkpoints.containers.gguf import vocabulary as _gguf_vocabulary
from forq.checkpoints.containers.gguf.architectures import ARCHITECTURES, REFUSED, Architecture
from forq.checkpoints.containers.gguf.architectures.architecture import INSIDE, Described, Interleaved, RowOrder
from forq.checkpoints.containers.gguf.header import Placed
from forq.checkpoints.containers.gguf.keys import Keys
from forq.checkpoints.containers.gguf.tensors import Part
from forq.errors import FormatError


class Model:
    """A file's header together with the entry that describes its architecture.

    Attributes:
        entry: the entry of the table.
        file: the header, as the entry sees it.
    """

    def __init__(self, path: Path, values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Find the entry.

        Args:
            values: the header's values.
            shapes: the tensors' shapes, by the names in the file.

        Raises:
            FormatError: the architecture is not supported, or a key has a value that forq does not compute.
        """
        kind = values.get("general.architecture")
        if not isinstance(kind, str) or kind not in ARCHITECTURES:
            why = f", {REFUSED[kind]}" if isinstance(kind, str) and kind in REFUSED else ""
            raise FormatError(
                f"{path}: expected general.architecture among {', '.join(ARCHITECTURES)}, found {kind!r:.80}{why}"
            )
        self.path, self.values = path, values
        self.entry: Architecture = ARCHITECTURES[kind]
        self.file = Described(Keys(path, kind, values, self.entry.keys, self.entry.only), shapes)
        self.file.keys.check()
        self._chosen = self.entry.choose(self.file)

    def config(self) -> dict[str, Any]:
        """The equivalent of config.json.

        Raises:
            FormatError: a value is missing, out of range, or contradicts the tensors.
        """
        embedding = self.file.shapes.get("token_embd.weight", ())
        if len(embedding) != 2:
            raise FormatError(f"{self.path}: expected a matrix token_embd.weight, found shape {embedding}")
        tokens = self.values.get("tokenizer.ggml.tokens")
        if isinstance(tokens, list) and len(tokens) != embedding[0]:
            raise FormatError(
                f"{self.path}: expected a token for each of {embedding[0]} rows of token_embd.weight, found "
                f"{len(tokens)}; llama.cpp refuses that too: convert the model again"
            )
        settings = {
            "model_type": self.entry.model_type,
            "architectures": [self.entry.head],
            "vocab_size": embedding[0],
            "tie_word_embeddings": "output" not in self.entry.outside or not self.file.has("output.weight"),
            "dtype": "float16",
            **self.entry.settings(self.file),
        }
        return settings | _gguf_vocabulary.configured(self.path, self.values, rows=embedding[0])

    def place(self, name: str) -> tuple[str, ...]:
        """See :meth:`Architecture.place`."""
        return self.entry.place(name, self._chosen)

    def parts(self, tensor: Placed) -> list[Part]:
        """The checkpoint's tensors that a tensor of the file holds.

        Raises:
            FormatError: the number of its rows does not fit the number of heads.
        """
        if tensor.name in self.entry.ignored:
            return [Part(tensor.name, tensor.shape)]
        names, inside = self.place(tensor.name), INSIDE.fullmatch(tensor.name)
        own = "" if inside is None else inside[2]
        if len(names) > 1:
            return list(self._shared(tensor, names))
        if "{head}" in names[0]:
            heads = range(tensor.shape[0])
            return [Part(names[0].format(head=head), tensor.shape[1:], head) for head in heads]
        norm = own.endswith("norm") or tensor.name == "output_norm.weight"
        return [
            Part(
                names[0],
                tensor.shape,
                order=self._order(tensor, own),
                turned=own in self.entry.turned and len(tensor.shape) == 2,
                added=self.entry.norms_added if norm and tensor.name.endswith(".weight") else 0.0,
            )
        ]

    def _shared(self, tensor: Placed, names: tuple[str, ...]) -> Iterator[Part]:
        """Queries, keys and values that share a matrix or a bias."""
        heads = (self.file.heads, self.file.kv_heads, self.file.kv_heads)
        width, rest = divmod(tensor.shape[0], sum(heads))
        if rest:
            raise self._unfit(tensor, f"the rows of {' and '.join(map(str, heads))} heads")
        first = 0
        for name, count in zip(names, heads, strict=True):
            yield Part(name, (count * width, *tensor.shape[1:]), first)
            first += count * width

    def _order(self, tensor: Placed, own: str) -> RowOrder | None:
        """The order of a tensor's rows in the file; None if it is transformers' order."""
        if own not in self.entry.orders:
            return None
        order = self.entry.orders[own](self.file)
        if isinstance(order, Interleaved):
            if tensor.shape[0] % (2 * order.heads):
                raise self._unfit(tensor, f"whole pairs in the rows of {order.heads} heads")
        elif tensor.shape[0] % (self.file.heads + 2 * self.file.kv_heads):
            raise self._unfit(tensor, f"the rows of {self.file.heads} heads, and twice {self.file.kv_heads}")
        return order

    def _unfit(self, tensor: Placed, expected: str) -> FormatError:
        return FormatError(f"{self.path}: {tensor.name}: expected {expected}, found {tensor.shape[0]}")
