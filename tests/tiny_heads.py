"""Tiny random models with a classification head, written by transformers itself, with a tokenizer beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests import tiny_encoders, tiny_lm
from tests.unit.models.test_families import GATED, SMALL

NAMES = ("BAD", "GOOD")


def model(kind: str, names: tuple[str, ...] = NAMES, seed: int = 0, **settings: Any) -> Any:
    """A random classifier whose every tensor matters."""
    sizes = tiny_encoders.KINDS.get(kind) or SMALL.get(kind, GATED)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}
    config = transformers.AutoConfig.for_model(kind, **(sizes | labels | settings))
    torch.manual_seed(seed)
    made = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for value in made.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
            else:
                value.mul_(8)
    return made


def folder(where: Path, kind: str, names: tuple[str, ...] = NAMES, **settings: Any) -> Path:
    """The float checkpoint of :func:`model`."""
    transformers.utils.logging.disable_progress_bar()
    model(kind, names, **settings).save_pretrained(where)
    tokenizer(kind).save_pretrained(where)
    return where


def tokenizer(kind: str) -> Any:
    """The tokenizer of an encoder, which frames one or two texts, or of a decoder."""
    return tiny_encoders.pairs() if kind in tiny_encoders.KINDS else tiny_lm.tokenizer()
