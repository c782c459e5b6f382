"""Checkpoints: folders of safetensors or single files, read tensor by tensor and saved by patching a copy."""

from forq.checkpoints.checkpoint import Checkpoint
from forq.checkpoints.patch import Saved
from forq.checkpoints.relaid import Relaid
from forq.checkpoints.streamed import Rows, Streamed, rows_of
from forq.checkpoints.tensor import TensorInfo

__all__ = ["Checkpoint", "Relaid", "Rows", "Saved", "Streamed", "TensorInfo", "rows_of"]
