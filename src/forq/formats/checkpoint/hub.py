"""Hub ids: fetch a published checkpoint, data files only."""

from __future__ import annotations

from pathlib import Path

from forq.core import FormatError
from forq.formats.checkpoint.pipeline import INDEX

# Never *.bin (pickles) nor *.py (remote code): a checkpoint is data, and nothing in it is ever executed.
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja")
# Copies of the same weights for other programs, as large as the weights.
_LEFT = ("*/*", "consolidated*")
# A pipeline's weights lie in its components' folders; beside them lies one file with all of them once more.
_COMPONENTS = ("scheduler", "text_encoder*", "tokenizer*", "transformer", "vae")
_VARIANTS = ("*.fp16.*", "*.fp16-*")


def fetch(hub_id: str, revision: str | None = None) -> Path:
    """Folder of the hub's snapshot, downloaded or found in the cache.

    Args:
        hub_id: ``organisation/name``.
        revision: a branch, a tag or a commit; by default the main branch.

    Raises:
        FormatError: the id is unknown, gated or unreachable, or has no safetensors.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted_files, left = [*_WANTED], [*_LEFT]
    if pipeline := _is_pipeline(hub_id, revision):
        wanted_files = [INDEX, *(f"{part}/{end}" for part in _COMPONENTS for end in _WANTED)]
        left = [*_VARIANTS]
    said = hub_id if revision is None else f"{hub_id}@{revision}"
    wanted = f"expected a checkpoint folder or a hub id, found {said!r}, which is no folder here"
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=wanted_files, ignore_patterns=left))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if constants.is_offline_mode():
            raise FormatError(
                f"{wanted} and not in the cache {constants.HF_HUB_CACHE}; the hub is switched off by HF_HUB_OFFLINE: "
                "download it once without, or name a folder"
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"{wanted} and which the hub does not give: {first}") from error
    if not any(folder.glob("transformer/*.safetensors" if pipeline else "*.safetensors")):
        raise FormatError(
            f"{said}: expected safetensors, found none in its snapshot {folder}; forq downloads no pickles: take "
            "a revision with safetensors, or convert the weights"
        )
    return folder


def _is_pipeline(hub_id: str, revision: str | None) -> bool:
    """Whether the hub, or the cache, has a pipeline's index under this id; whatever else is wrong shows later."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        hf_hub_download(hub_id, INDEX, revision=revision)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return False
    return True
