"""Checkpoint: a folder of safetensors, read tensor by tensor and saved by patching a copy of the original."""

from forq.formats.checkpoint.folder import Checkpoint
from forq.formats.checkpoint.header import TensorInfo
from forq.formats.checkpoint.patch import Saved

__all__ = ["Checkpoint", "Saved", "TensorInfo"]
