"""Pictures with captions as a task: batches at noise levels, the loss of flow matching, scores by quarters of levels.

The noise levels of a batch are stratified. Each held-out picture is scored at four noise levels, one from each quarter
of their distribution, with noise that never changes. ``loss q1`` is the mean over the quarter with the least noise,
``loss q4`` over the quarter with the most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, cast

import torch
from PIL import Image
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.noise.bits import Bits, leaf_id
from forq.scalars.losses import Losses
from forq.scalars.moves import direction_seed
from forq.tasks import Score, Split
from forq.tasks.images.noised import Noised, flow, normal, sigmas, stratified, uniform
from forq.tasks.images.pictures import Picture, grid, pixels
from forq.tasks.kinds.encoded import Encoded
from forq.tasks.kinds.features import Features, Judge
from forq.tasks.objectives.predictions import Predictions, Uniform, of_squares
from forq.tasks.rows.order import rows_of
from forq.tasks.rows.taken import Taken, sizes
from forq.tokens.model import Denoiser

QUARTERS = 4
_NOISE, _LEVEL, _DROP = (leaf_id(f"text to image: {name}") for name in ("noise", "level", "dropped captions"))


@dataclass(frozen=True, eq=False, kw_only=True)
class TextToImage:
    """Pictures with captions as a task; made by :func:`forq.tasks.text_to_image.open`.

    Attributes:
        samples: captions of the sample pictures that a run draws.
        sample_steps: scheduler steps per drawn picture.
        features: the feature network that compares pictures, see :meth:`judge`.
        feature_samples: number of pictures drawn for that comparison.
        most: maximum number of pictures in one forward.
        taken: what the splits leave of the data's pictures.
    """

    read_apart: ClassVar[bool] = True

    rows: Mapping[Split, Sequence[Picture]]
    encoded: Encoded
    seed: int
    resolution: int
    batch_rows: int
    caption_dropout: float
    stratify: bool
    samples: tuple[str, ...]
    sample_steps: int
    features: Features | None
    feature_samples: int
    digest: str
    most: int
    taken: Taken

    def budgeted(self, tokens_per_probe: int | None, micro_batch_tokens: int | None) -> Self:
        """The same task. Batches are counted in pictures here, so a token budget cannot be set.

        Raises:
            ConfigError: a token budget is given.
        """
        if tokens_per_probe is not None or micro_batch_tokens is not None:
            raise ConfigError(
                "text-to-image counts pictures, not tokens: set task.batch_rows, and task.micro_batch for one forward"
            )
        return self

    def describe(self) -> Mapping[str, object]:
        return {
            "task": "text-to-image",
            "rows": sizes(self.rows),
            **self.taken.plain(),
            "resolution": self.resolution,
            "batch_rows": self.batch_rows,
            "caption_dropout": self.caption_dropout,
            "stratify": self.stratify,
            "objective": "flow",
            "shift": self.encoded.shift,
            "encoded": self.encoded.digest,
            "digest": self.digest,
        }

    @property
    def in_order(self) -> bool:
        """Stratified rows stand in the order of their noise levels."""
        return self.stratify

    def batch(self, step: int) -> Noised:
        rows = self.rows["train"]
        picked = rows_of(step, rows=len(rows), batch_rows=self.batch_rows, seed=self.seed, digest=self.digest)
        seed, n = direction_seed(self.seed, step), self.batch_rows
        level, dropped = Bits(seed, _LEVEL), uniform(Bits(seed, _DROP), n) < self.caption_dropout
        u = stratified(level, n) if self.stratify else uniform(level, n)
        captions = ["" if drop else rows[row].caption for row, drop in zip(picked, dropped.tolist(), strict=True)]
        latents = torch.stack([self.encoded.latent(rows[row]) for row in picked])
        return self._noised(latents, captions, normal(Bits(seed, _NOISE), tuple(latents.shape)), u)

    def batches(self, split: Split, limit: int | None = None) -> Iterator[Noised]:
        rows = self.rows[split][:limit]
        for start in range(0, len(rows), self.batch_rows):
            picked = rows[start : start + self.batch_rows]
            latents = torch.stack([self.encoded.latent(row) for row in picked])
            for quarter in range(QUARTERS):
                keys = [leaf_id(f"{split} noise {row.digest}") for row in picked]
                noise = [normal(Bits(direction_seed(0, quarter), key), tuple(latents.shape[1:])) for key in keys]
                inside = torch.cat([uniform(Bits(direction_seed(1, quarter), key), 1) for key in keys])
                captions = [row.caption for row in picked]
                yield self._noised(latents, captions, torch.stack(noise), (quarter + inside) / QUARTERS)

    def loss(self, model: nn.Module, batch: Noised) -> float:
        with torch.inference_mode():
            return float(self.loss_tensor(model, batch))

    def losses(self, model: nn.Module, batch: Noised) -> Losses:
        with torch.inference_mode():
            each, _ = self._measured(model, batch)
            return Losses(float(each.mean()), tuple(each.tolist()))

    def loss_tensor(self, model: nn.Module, batch: Noised) -> Tensor:
        return self._measured(model, batch)[0].mean()

    def predictions(self, model: nn.Module, batch: Noised, at: Predictions | None, uniform: Uniform) -> Predictions:
        with torch.inference_mode():
            return of_squares(*self._measured(model, batch))

    def evaluate(self, model: nn.Module, split: Split, limit: int | None = None) -> Score:
        rows = len(self.rows[split][:limit])
        if rows == 0:
            raise ConfigError(f"limit must leave at least one row to evaluate, found {limit}")
        sums = [0.0] * QUARTERS
        for place, batch in enumerate(self.batches(split, limit)):
            with torch.inference_mode():
                sums[place % QUARTERS] += float(self._measured(model, batch)[0].double().sum())
        metrics = {f"loss q{quarter + 1}": total / rows for quarter, total in enumerate(sums)}
        return Score(sum(sums) / (rows * QUARTERS), rows, metrics)

    def pictures(self, model: nn.Module) -> Image.Image | None:
        """A picture of each sample caption, side by side; the same weights give the same picture."""
        if not self.samples:
            return None
        drawn = self.encoded.draw(model, self.samples, self.seed, self.sample_steps, self.resolution)
        return grid(drawn, columns=len(drawn))

    def judge(self, split: Split) -> Judge | None:
        """A judge that compares a model's pictures with those of a split; None without ``features``.

        The captions are the split's, in order; after the last they begin again. The noise has seeds
        0, 1, ….

        Raises:
            ConfigError: the feature network failed, see :class:`forq.tasks.kinds.features.Features`.
            DataError: the split has fewer than two pictures.
        """
        if (features := self.features) is None:
            return None
        rows = self.rows[split]
        if len(rows) < 2:
            raise DataError(f"task.features: expected 2 pictures or more to compare with, found {len(rows)} in {split}")
        pieces = [rows[at : at + self.most] for at in range(0, len(rows), self.most)]
        batches = (torch.stack([(pixels(row.path, self.resolution) + 1) / 2 for row in piece]) for piece in pieces)
        return Judge(
            features=features,
            held_out=torch.cat([features(batch) for batch in batches]),
            captions=[rows[n % len(rows)].caption for n in range(self.feature_samples)],
            draw=lambda model, captions, seed: self.encoded.draw(
                model, captions, seed, self.sample_steps, self.resolution
            ),
            most=self.most,
        )

    def _noised(self, latents: Tensor, captions: Sequence[str], noise: Tensor, u: Tensor) -> Noised:
        texts, pooled = zip(*(self.encoded.text(caption) for caption in captions), strict=True)
        level = sigmas(u, self.encoded.shift)
        return Noised(latents, noise, level, torch.stack(texts), torch.stack(pooled), self.most)

    def _measured(self, model: nn.Module, batch: Noised) -> tuple[Tensor, Tensor]:
        denoiser = cast(Denoiser, model)
        if model.training:
            raise ConfigError("the model is in training mode, dropout differs between + and −: call model.eval()")

        def velocity(x: Tensor, texts: Tensor, pooled: Tensor, sigma: Tensor) -> Tensor:
            return denoiser(x, texts, pooled, 1000 * sigma, return_dict=False)[0]

        return flow(velocity, batch, denoiser.device, denoiser.dtype)
