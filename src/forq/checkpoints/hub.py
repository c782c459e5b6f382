"""Hub ids: fetch a published checkpoint, data files only.

    organisation/name[@revision]                    a folder of safetensors, of HQQ's, or a pipeline's
    organisation/name[@revision]/folder/file.gguf   one file; of .onnx with its external data, configuration, tokenizer

The hub's own client downloads them into its cache, or finds them there.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from forq.checkpoints.containers.onnx import graph as _onnx_graph
from forq.checkpoints.containers.pipeline import COMPONENT, INDEX, KNOWN
from forq.checkpoints.contents import BESIDE, ENDINGS, PICKLE
from forq.errors import FormatError

# Never *.bin (pickles) nor *.py (remote code): a checkpoint is data, and nothing in it is ever executed.
_WANTED = ("*.safetensors", *(f"*{end}" for end in BESIDE))
# Copies of the same weights for other programs, as large as the weights.
_LEFT = ("*/*", "consolidated*")
# The same weights in another precision: model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, and its index.
_VARIANTS = ("*.*.safetensors", "*.index.*.json", "*.safetensors.*.index.json")
# A revision has no slash in front of a file, but for the one kind of the hub's own that always has.
_FILE = re.compile(r"([^/@]+/[^/@]+)(?:@(refs/pr/[0-9]+|[^/@]+))?/(.+)")
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.gguf", re.IGNORECASE)
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository of the hub, or one file of it.

    Attributes:
        name: ``organisation/name``.
        revision: a branch, a tag or a commit; None: the main branch.
        file: its place in the repository; "": the repository.
    """

    name: str
    revision: str | None
    file: str = ""

    def __str__(self) -> str:
        at = self.name if self.revision is None else f"{self.name}@{self.revision}"
        return f"{at}/{self.file}" if self.file else at


def hub_id(source: str, revision: str | None = None) -> HubId | None:
    """The hub id a text is, or None where it can only be meant as a path of this machine."""
    if source.startswith((".", "~", "/")) or Path(source).is_absolute():
        return None
    if source.lower().endswith(ENDINGS):
        found = _FILE.fullmatch(source)
        # Somebody who has a folder of the repository's name means what should lie in it.
        if found is None or ".." in found[3].split("/") or Path(found[1]).is_dir():
            return None
        return HubId(found[1], revision or found[2], found[3])
    name, _, said = source.partition("@")
    return None if name.count("/") > 1 else HubId(name, revision or said or None)


def fetch(wanted: HubId) -> Path:
    """Folder of the hub's snapshot, or the file in it that is named; downloaded or found in the cache.

    Raises:
        FormatError: the id is unknown, gated or unreachable, has no weights that are read, or is a pipeline forq does
            not read.
    """
    return _file(wanted) if wanted.file else _repository(wanted)


def _repository(wanted: HubId) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    wanted_files, left, weights = [*_WANTED], [*_LEFT], "*.safetensors"
    if (index := _index(wanted)) is not None:
        # A pipeline's weights lie in its components' folders; beside them often lies one file with all of them again.
        parts = _components(index, wanted)
        wanted_files = [INDEX, *(f"{part}/{end}" for part in parts for end in _WANTED)]
        left, weights = [*_VARIANTS], f"{COMPONENT}/*.safetensors"
    with _asked(wanted):
        said = snapshot_download(
            wanted.name, revision=wanted.revision, allow_patterns=wanted_files, ignore_patterns=left
        )
    folder = Path(said)
    if any(folder.glob(weights)):
        return folder
    files = _listed(wanted, folder)
    if index is None and {PICKLE, "config.json"} <= {*files}:
        with _asked(HubId(wanted.name, wanted.revision, PICKLE)):
            return Path(hf_hub_download(wanted.name, PICKLE, revision=folder.name)).parent
    if several := [name for name in files if name.lower().endswith(ENDINGS)]:
        more = f" and {len(several) - _MOST_NAMED} more" if len(several) > _MOST_NAMED else ""
        raise FormatError(
            f"{wanted}: expected safetensors, found {', '.join(several[:_MOST_NAMED])}{more}; name one of them: "
            f"{wanted}/{several[0]}"
        )
    raise FormatError(
        f"{wanted}: expected safetensors, found none in its snapshot {folder}, nor a file of GGUF or ONNX, nor HQQ's "
        f"{PICKLE} with its config.json; forq downloads no pickles: take a revision with safetensors, or convert them"
    )


def _file(wanted: HubId) -> Path:
    from huggingface_hub import hf_hub_download

    if _SHARD.search(wanted.file):
        raise FormatError(f"{wanted}: expected a whole model, found one of several parts: merge them with gguf-split")
    with _asked(wanted):
        path = Path(hf_hub_download(wanted.name, wanted.file, revision=wanted.revision))
    if path.suffix.lower() == ".onnx":
        _rest(wanted, path)
    return path


def _rest(wanted: HubId, path: Path) -> None:
    """What an ONNX model reads beside its file, of the same commit: external data, configuration, tokenizer."""
    from huggingface_hub import hf_hub_download, snapshot_download

    own = wanted.file.removesuffix(path.name)
    commit = path.parents[wanted.file.count("/")].name
    for name in sorted({one.file for one in _onnx_graph.read(path).initialisers.values()} - {""}):
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\\" in name:
            continue  # nothing is asked for it; reading the model says why
        with _asked(HubId(wanted.name, wanted.revision, own + name)):
            hf_hub_download(wanted.name, own + name, revision=commit)
    for folder in dict.fromkeys((own, own.removesuffix("onnx/"))):
        inside = glob.escape(folder)
        with _asked(wanted):
            snapshot_download(
                wanted.name,
                revision=commit,
                allow_patterns=[f"{inside}*{end}" for end in BESIDE],
                ignore_patterns=[f"{inside}*/*"],
            )


@contextmanager
def _asked(wanted: HubId) -> Iterator[None]:
    """Whatever the hub's client ends in, as a refusal that says what was wanted."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        kind = "file" if wanted.file else "folder"
        what = f"expected a checkpoint {kind} or a hub id, found {str(wanted)!r}, which is no {kind} here"
        if constants.is_offline_mode():
            raise FormatError(
                f"{what} and not in the cache {constants.HF_HUB_CACHE}; the hub is switched off by HF_HUB_OFFLINE: "
                f"download it once without, or name a {kind}"
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"{what} and which the hub does not give: {first}") from error


def _listed(wanted: HubId, folder: Path) -> list[str]:
    """Names of a repository's files; where the hub cannot be asked, of those in the cache."""
    from huggingface_hub import HfApi

    try:
        return sorted(HfApi().list_repo_files(wanted.name, revision=wanted.revision))
    except Exception:  # the client's own, and those of the library below it, have no common base
        return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _index(wanted: HubId) -> Path | None:
    """A pipeline's index, where the hub or the cache has one under this id; whatever else is wrong shows later."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(wanted.name, INDEX, revision=wanted.revision))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None


def _components(index: Path, said: HubId) -> list[str]:
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
