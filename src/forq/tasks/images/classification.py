"""Classification of images by a network that gives scores of the classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.tasks import Tokenizer
from forq.tasks.objectives.rewarded import Answer
from forq.tasks.rows.classed import Classed
from forq.tasks.rows.segments import Segment


@runtime_checkable
class Network(Protocol):
    """A network on images, from a batch and the name of an output to that output."""

    def __call__(self, images: Tensor, output: str | None = None) -> Tensor: ...


class ImageRow(NamedTuple):
    """An image of a split: its place among the levels, its class, and its file."""

    place: int
    label: int
    where: str


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """A batch: levels, uint8 [rows, H, W, C], classes int64 [rows], and files."""

    levels: Tensor
    labels: Tensor
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageRows(Classed[ImageRow, Images]):
    """A task of images with classes.

    Attributes:
        levels: all images that rows point to, uint8 [N, H, W, C].
        numbers: from a batch of levels to the input of the network.
        output: name of the network's output that holds the scores.
        outputs: names of all its outputs, which a reward gets.
        at_once: most images in a run of the network.
        least: where the output holds probabilities, the smallest that it can tell from 0; None: it holds logits.
    """

    levels: Tensor
    numbers: Callable[[Tensor], Tensor]
    output: str
    outputs: tuple[str, ...]
    at_once: int
    least: float | None = None
    tokenizer: Tokenizer = field(default=cast(Tokenizer, None))  # images have no tokens
    max_length: int = 1

    def length(self, row: ImageRow) -> int:
        return 1

    def segments(self, row: ImageRow) -> tuple[Segment, ...]:
        raise ConfigError("images have no tokens to show: leave --data out of forq inspect")

    @property
    def called(self) -> Sequence[str]:
        return self.names

    def describe(self) -> Mapping[str, object]:
        described = super(ImageRows, self).describe()
        return {name: value for name, value in described.items() if name not in ("tokens", "max_length")}

    def pack(self, rows: Sequence[ImageRow], most_tokens: int | None = None) -> Images:
        places, labels, where = zip(*rows, strict=True)
        return Images(self.levels[list(places)], torch.tensor(labels), where)

    def logits(self, model: nn.Module, batch: Images) -> Tensor:
        """Logits of the classes; those of a network that gives probabilities are log p, whose softmax is p again."""
        scores = self._scores(self._run(model, batch, self.output))
        return scores if self.least is None else scores.clamp(min=self.least).log()

    def answers(self, model: nn.Module, batch: Images) -> list[Answer]:
        """The likeliest class of each image; a reward's ``row`` holds the graph's outputs as they are, by name."""
        given = {name: self._run(model, batch, name) for name in self.outputs}
        scores = self._scores(given[self.output])
        likeliest = scores.argmax(dim=1).tolist()
        return [
            Answer(
                batch.where[place],
                self.names[best],
                {
                    "answer": self.names[right],
                    "label": right,
                    "scores": scores[place].tolist(),
                    "outputs": {name: value[place].tolist() for name, value in given.items()},
                },
            )
            for place, (best, right) in enumerate(zip(likeliest, batch.labels.tolist(), strict=True))
        ]

    def _scores(self, scores: Tensor) -> Tensor:
        """The output as a matrix [images, classes]."""
        scores = scores.flatten(1) if scores.dim() == 4 and scores.shape[2:] == (1, 1) else scores
        if scores.dim() != 2 or scores.shape[1] != self.classes:
            raise DataError(
                f"{self.output}: expected scores (images, {self.classes}), found {tuple(scores.shape)}; "
                "give the classes in the order of the outputs: --set task.labels=CAT,DOG,…"
            )
        return scores

    def _run(self, model: nn.Module, batch: Images, output: str) -> Tensor:
        assert isinstance(model, Network)
        x = self.numbers(batch.levels)
        return torch.cat([model(x[at : at + self.at_once], output) for at in range(0, len(x), self.at_once)])
