"""Hub ids: fetch a published checkpoint, data files only."""

from __future__ import annotations

import json
from pathlib import Path

from forq.core import FormatError
from forq.formats.checkpoint.pipeline import COMPONENT, INDEX, KNOWN

# Never *.bin (pickles) nor *.py (remote code): a checkpoint is data, and nothing in it is ever executed.
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja")
# Copies of the same weights for other programs, as large as the weights.
_LEFT = ("*/*", "consolidated*")
# The same weights in another precision: model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, and its index.
_VARIANTS = ("*.*.safetensors", "*.index.*.json", "*.safetensors.*.index.json")


def fetch(hub_id: str, revision: str | None = None) -> Path:
    """Folder of the hub's snapshot, downloaded or found in the cache.

    Args:
        hub_id: ``organisation/name``.
        revision: a branch, a tag or a commit; by default the main branch.

    Raises:
        FormatError: the id is unknown, gated or unreachable, has no safetensors, or is a pipeline forq does not read.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    said = hub_id if revision is None else f"{hub_id}@{revision}"
    wanted_files, left, weights = [*_WANTED], [*_LEFT], "*.safetensors"
    if (index := _index(hub_id, revision)) is not None:
        # A pipeline's weights lie in its components' folders; beside them often lies one file with all of them again.
        parts = _components(index, said)
        wanted_files = [INDEX, *(f"{part}/{end}" for part in parts for end in _WANTED)]
        left, weights = [*_VARIANTS], f"{COMPONENT}/*.safetensors"
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
    if not any(folder.glob(weights)):
        raise FormatError(
            f"{said}: expected safetensors, found none in its snapshot {folder}; a file of GGUF, ONNX or HQQ "
            "(qmodel.pt with its config.json) is not fetched: download it and name it. forq downloads no pickles: of "
            "those take a revision with safetensors, or convert the weights"
        )
    return folder


def _index(hub_id: str, revision: str | None) -> Path | None:
    """A pipeline's index, where the hub or the cache has one under this id; whatever else is wrong shows later."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(hub_id, INDEX, revision=revision))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None


def _components(index: Path, said: str) -> list[str]:
    """The folders a pipeline's index names, those of components it leaves out not among them.

    Raises:
        FormatError: another pipeline than forq reads: said before tens of gigabytes are fetched.
    """
    try:
        told = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{said}: expected {INDEX} to be JSON, found {error}") from error
    name = told.get("_class_name") if isinstance(told, dict) else None
    if name not in KNOWN:
        raise FormatError(f"{said}: expected a pipeline among {', '.join(KNOWN)}, found {name!r:.80}")
    # A component is [library, class]; [null, null] is one left out. Its name is a folder's, and no pattern.
    return [key for key, one in told.items() if isinstance(one, list) and one[:1] != [None] and key.isidentifier()]
