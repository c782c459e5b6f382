"""Checkpoint: a folder of safetensors, or one file, read tensor by tensor and saved by patching a copy."""

from forq.formats.checkpoint.folder import Checkpoint
from forq.formats.checkpoint.header import TensorInfo
from forq.formats.checkpoint.patch import Saved
from forq.formats.checkpoint.relaid import Relaid
from forq.formats.checkpoint.streamed import Streamed

__all__ = ["Checkpoint", "Relaid", "Saved", "Streamed", "TensorInfo"]
