"""The tokenizer of a checkpoint, and a description of how forq tokenizes its texts."""

from forq.models.tokenizer.opened import CheckpointTokenizer, generation_ends, open_tokenizer
from forq.models.tokenizer.reading import Reading, reading

__all__ = ["CheckpointTokenizer", "Reading", "generation_ends", "open_tokenizer", "reading"]
