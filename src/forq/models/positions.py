"""How many tokens a text may have: the positions of a model."""

from __future__ import annotations

from forq.checkpoints import Checkpoint
from forq.models import sentences
from forq.models.loaded import LoadedModel
from forq.models.skeleton import configuration

_BEHIND_PADDING = ("roberta", "xlm-roberta", "mpnet")
"""Families that number positions from the padding token's id + 1, so that their tables have rows no text reaches."""


def usual_length(model: LoadedModel | Checkpoint) -> int | None:
    """The number of tokens at which a text is cut unless a user says otherwise; at most the positions.

    Folders of sentence-transformers may name fewer tokens than the model has positions. Unlike these, a user may set
    more.
    """
    ckpt = model.checkpoint if isinstance(model, LoadedModel) else model
    known = [limit for limit in (positions(model), sentences.longest(ckpt.folder)) if limit is not None]
    return min(known, default=None)


def positions(model: LoadedModel | Checkpoint) -> int | None:
    """The largest number of tokens in a text; None where the configuration names none, as for ALiBi.

    Args:
        model: a loaded model, or its checkpoint, of which only the configuration is read.
    """
    config: object
    if isinstance(model, LoadedModel):
        config = model.config
    elif model.graph is not None:
        limit = model.config.get("max_position_embeddings")
        return limit if isinstance(limit, int) else None
    else:
        try:
            config = configuration(model.config)  # its class knows older names of the setting, and its default
        except Exception:  # loading says what is wrong with it
            return None
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int):
        return None
    kind = getattr(config, "model_type", None)
    if kind not in _BEHIND_PADDING:
        return limit
    padding = 1 if kind == "mpnet" else getattr(config, "pad_token_id", None)  # MPNet's class has it written in
    return limit - (-1 if padding is None else int(padding)) - 1
