"""Hub ids: fetch a published checkpoint, data files only."""

from __future__ import annotations

from pathlib import Path

from forq.core import FormatError

# Never *.bin (pickles) nor *.py (remote code): a checkpoint is data, and nothing in it is ever executed.
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja")


def fetch(hub_id: str, revision: str | None = None) -> Path:
    """Folder of the hub's snapshot, downloaded or found in the cache.

    Raises:
        FormatError: the id is unknown, gated or unreachable.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(_WANTED)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(
            f"expected a checkpoint folder or a hub id, found {hub_id!r}, which is no folder here and which "
            f"the hub does not give: {first}"
        ) from error
