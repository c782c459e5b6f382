"""Text to image: flow matching on pictures with captions, for Stable Diffusion 3 and 3.5.

The data is a folder, see :mod:`forq.tasks.images.pictures`. Splits without a folder are drawn from
the training pictures with the seed, a tenth each. Latents and text embeddings come from a cache on
disk, so that neither the VAE nor a text encoder is in memory while a model is tuned.

The loss is the model's own (:mod:`forq.tasks.images.noised`); batches and scores:
:mod:`forq.tasks.images.captioned`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from forq.errors import ConfigError, DataError
from forq.tasks import Split
from forq.tasks.images.captioned import TextToImage
from forq.tasks.images.pictures import Picture, read_splits
from forq.tasks.kinds.encoded import Encoded
from forq.tasks.kinds.features import Features
from forq.tasks.rows.order import draw
from forq.tasks.rows.taken import Whole, sizes, taken


def open(
    data: Path,
    encoded: Encoded,
    *,
    seed: int,
    resolution: int = 512,
    batch_rows: int = 16,
    micro_batch: int = 16,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    caption_dropout: float = 0.1,
    stratify: bool = True,
    text_tokens: int = 256,
    samples: int = 4,
    sample_steps: int = 20,
    features: str | None = None,
    feature_samples: int = 100,
    whole: Whole | None = None,
) -> TextToImage:
    """Read the captions and fill the cache of latents and text embeddings.

    Args:
        data: the folder.
        encoded: the pipeline's frozen components.
        seed: seed for drawing held-out pictures, for the order of pictures, for noise and for noise levels.
        resolution: height and width of a picture in pixels.
        batch_rows: pictures per batch.
        micro_batch: maximum number of pictures in one forward. It bounds memory and changes only the
            last bits of a loss.
        train_rows, validation_rows, test_rows: maximum number of pictures in each split. None: all,
            or a tenth of the training pictures where the split is drawn from them.
        caption_dropout: share of training captions that are replaced by an empty text, for
            classifier-free guidance.
        stratify: draw one noise level from each of ``batch_rows`` equal parts of their distribution.
        text_tokens: number of T5 tokens (``max_sequence_length`` in diffusers).
        samples: number of pictures a run draws at each evaluation; 0: none.
        sample_steps: scheduler steps per drawn picture.
        features: network that compares drawn with held-out pictures in ``forq eval``.
        feature_samples: number of pictures drawn for that comparison.
        whole: the pictures are only scored; see :class:`forq.tasks.rows.taken.Whole`.

    Raises:
        ConfigError: a setting is not valid.
        DataError: the data cannot be used.
    """
    limits: dict[Split, int | None] = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    if min(batch_rows, micro_batch, text_tokens, sample_steps) < 1 or any(
        n is not None and n < 1 for n in limits.values()
    ):
        raise ConfigError("batches, splits, text tokens and sampling need 1 or more")
    if not 0 <= caption_dropout <= 1:
        raise ConfigError(f"task.caption_dropout: expected a share 0 … 1, found {caption_dropout}")
    if feature_samples < 2:
        raise ConfigError(f"task.feature_samples: expected 2 or more, found {feature_samples}")
    network = None if features is None else Features.open(features)
    splits = read_splits(Path(data))
    read = sizes(splits)
    rows = None if whole is None else whole.of(splits)
    if rows is None:
        rows = _drawn(splits, limits, seed)
    if not all(rows.values()):
        raise DataError(f"{data}: expected pictures for training, validation and test, found {read['train']} in all")
    captions = list(dict.fromkeys(row.caption for row in [*rows["test"], *rows.get("validation", ())]))
    encoded.prepare([row for split in rows.values() for row in split], resolution, text_tokens)
    settings = {
        "task": "text-to-image",
        "law": 1,
        "encoded": encoded.digest,
        "caption_dropout": caption_dropout,
        "stratify": stratify,
        "batch_rows": batch_rows,
        "rows": {split: [[row.digest, row.caption] for row in picked] for split, picked in rows.items()},
    }
    return TextToImage(
        rows=rows,
        taken=taken(read, sizes(rows)),
        encoded=encoded,
        seed=seed,
        resolution=resolution,
        batch_rows=batch_rows,
        caption_dropout=caption_dropout,
        stratify=stratify,
        samples=tuple(captions[:samples]),
        sample_steps=sample_steps,
        features=network,
        feature_samples=feature_samples,
        digest=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        most=micro_batch,
    )


def _drawn(
    splits: dict[Split, list[Picture]], limits: Mapping[Split, int | None], seed: int
) -> dict[Split, list[Picture]]:
    """The pictures of every split; those without pictures of their own take some of the training pictures."""
    missing: list[Split] = [split for split in ("validation", "test") if split not in splits]
    known = order = splits["train"]
    if missing:
        digest = hashlib.sha256(json.dumps([[row.digest, row.caption] for row in known]).encode()).hexdigest()
        order = [known[row] for row in draw(len(known), len(known), seed=seed, digest=digest)]
    drawn = {**splits}
    for split in missing:
        count = limits[split] or max(1, len(known) // 10)
        drawn[split], order = order[:count], order[count:]
    drawn["train"] = order
    return {split: drawn[split][:limit] for split, limit in limits.items()}


def example(folder: Path) -> Path:
    """Write forty small squares, each with its own shade, captioned light or dark."""
    lines = []
    for n in range(40):
        shade = n * 6
        Image.new("L", (20 + n % 3, 20), shade).save(folder / f"{n:02}.png")
        lines.append(
            json.dumps({"file_name": f"{n:02}.png", "text": "a light square" if shade > 120 else "a dark one"})
        )
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
