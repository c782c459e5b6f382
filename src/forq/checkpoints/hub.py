"""Hub ids: fetch a published checkpoint. Only data files are downloaded.

    organisation/name[@revision]                    a folder of safetensors, an HQQ checkpoint or a pipeline
    organisation/name[@revision]/folder/file.gguf   a single file, or the first of several;
                                                    .onnx with external data, config.json and tokenizer

The files are downloaded with huggingface_hub and kept in its cache.
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
from forq.checkpoints.gguf_names import SPLIT
from forq.checkpoints.likely import NAMED, nearest_name
from forq.errors import FormatError

# Never *.bin (pickles) or *.py (remote code): nothing in a checkpoint is ever executed.
_WANTED = ("*.safetensors", *(f"*{end}" for end in BESIDE))
# Copies of the same weights for other programs.
_IGNORED = ("*/*", "consolidated*")
# Sub-folders of which a file in the repository's own folder speaks, and what is fetched of them.
_INSIDE = {
    "modules.json": ("[0-9]_*/config.json", "[0-9]_*/*.safetensors"),
    "chat_template.jinja": ("additional_chat_templates/*.jinja",),
}
# The same weights in another precision: model.fp16.safetensors, model.fp16-00001-of-00002.safetensors and their index.
_VARIANTS = ("*.*.safetensors", "*.index.*.json", "*.safetensors.*.index.json")
# Before a file, a revision may hold no slash, except the hub's refs/pr/N.
_FILE = re.compile(r"([^/@]+/[^/@]+)(?:@(refs/pr/[0-9]+|[^/@]+))?/(.+)")
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository on the hub, or a file in one.

    Attributes:
        name: ``organisation/name``.
        revision: a branch, a tag or a commit; None: the main branch.
        file: path of a file in the repository; "": the whole repository.
    """

    name: str
    revision: str | None
    file: str = ""

    def __str__(self) -> str:
        at = self.name if self.revision is None else f"{self.name}@{self.revision}"
        return f"{at}/{self.file}" if self.file else at


def hub_id(source: str, revision: str | None = None) -> HubId | None:
    """Parse a hub id; None if the text can only be a local path."""
    if source.startswith((".", "~", "/")) or Path(source).is_absolute():
        return None
    if source.lower().endswith(ENDINGS):
        match = _FILE.fullmatch(source)
        # If a local folder has the repository's name, the text means a file in that folder.
        if match is None or ".." in match[3].split("/") or Path(match[1]).is_dir():
            return None
        return HubId(match[1], revision or match[2], match[3])
    name, _, own_revision = source.partition("@")
    return None if name.count("/") > 1 else HubId(name, revision or own_revision or None)


def fetch(wanted: HubId) -> Path:
    """Download a checkpoint, or find it in the cache. Returns the snapshot's folder, or the named file.

    Raises:
        FormatError: the id is unknown, gated or unreachable, or the repository has no weights or pipeline
            that forq reads.
    """
    return _file(wanted) if wanted.file else _repository(wanted)


def _repository(wanted: HubId) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    patterns, ignored, weights = [*_WANTED], [*_IGNORED], "*.safetensors"
    if (index := _index(wanted)) is not None:
        # The weights lie in the components' folders. Many repositories also hold them all in a single file.
        parts = _components(index, wanted)
        patterns = [INDEX, *(f"{part}/{end}" for part in parts for end in _WANTED)]
        ignored, weights = [*_VARIANTS], f"{COMPONENT}/*.safetensors"
    with _hub_errors(wanted):
        snapshot = snapshot_download(
            wanted.name, revision=wanted.revision, allow_patterns=patterns, ignore_patterns=ignored
        )
    folder = Path(snapshot)
    if any(folder.glob(weights)):
        if index is None:
            _fetch_inside(wanted, folder)
        return folder
    files = _listed(wanted, folder)
    if index is None and {PICKLE, "config.json"} <= {*files}:
        with _hub_errors(HubId(wanted.name, wanted.revision, PICKLE)):
            return Path(hf_hub_download(wanted.name, PICKLE, revision=folder.name)).parent
    if several := [name for name in files if name.lower().endswith(ENDINGS)]:
        more = f" and {len(several) - _MOST_NAMED} more" if len(several) > _MOST_NAMED else ""
        raise FormatError(
            f"{wanted}: expected safetensors, found {', '.join(several[:_MOST_NAMED])}{more}; name one of them: "
            f"{wanted}/{several[0]}"
        )
    raise FormatError(
        f"{wanted}: expected safetensors, found none in its snapshot {folder}, no GGUF or ONNX file, and "
        f"no {PICKLE} of HQQ with its config.json; forq downloads no pickles: take a revision with safetensors, or "
        "convert them"
    )


def _fetch_inside(wanted: HubId, folder: Path) -> None:
    """Fetch sentence-transformers' modules (pooling) and further chat templates, of the snapshot's own commit."""
    from huggingface_hub import snapshot_download

    patterns = [pattern for name, some in _INSIDE.items() if (folder / name).is_file() for pattern in some]
    if patterns:
        with _hub_errors(wanted):
            snapshot_download(wanted.name, revision=folder.name, allow_patterns=patterns)


def _file(wanted: HubId) -> Path:
    from huggingface_hub import hf_hub_download

    part = SPLIT.fullmatch(wanted.file)
    if part is not None and int(part[2]) != 1:
        raise FormatError(
            f"{wanted}: expected the first of {int(part[3])} files, found number {int(part[2])}; name "
            f"{HubId(wanted.name, wanted.revision, f'{part[1]}-00001-of-{part[3]}{part[4]}')}"
        )
    with _hub_errors(wanted):
        path = Path(hf_hub_download(wanted.name, wanted.file, revision=wanted.revision))
    if part is not None:
        commit = path.parents[wanted.file.count("/")].name
        for number in range(2, int(part[3]) + 1):
            name = f"{part[1]}-{number:05}-of-{part[3]}{part[4]}"
            with _hub_errors(HubId(wanted.name, wanted.revision, name)):
                hf_hub_download(wanted.name, name, revision=commit)
    if path.suffix.lower() == ".onnx":
        _fetch_companions(wanted, path)
    return path


def _fetch_companions(wanted: HubId, path: Path) -> None:
    """Fetch the other files of an ONNX model, of the same commit: external data, config.json, tokenizer."""
    from huggingface_hub import hf_hub_download, snapshot_download

    prefix = wanted.file.removesuffix(path.name)
    commit = path.parents[wanted.file.count("/")].name
    for name in sorted({tensor.file for tensor in _onnx_graph.read(path).initialisers.values()} - {""}):
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\\" in name:
            continue  # not downloaded; opening the model refuses such a path
        with _hub_errors(HubId(wanted.name, wanted.revision, prefix + name)):
            hf_hub_download(wanted.name, prefix + name, revision=commit)
    for folder in dict.fromkeys((prefix, prefix.removesuffix("onnx/"))):
        inside = glob.escape(folder)
        with _hub_errors(wanted):
            snapshot_download(
                wanted.name,
                revision=commit,
                allow_patterns=[f"{inside}*{end}" for end in BESIDE],
                ignore_patterns=[f"{inside}*/*"],
            )


@contextmanager
def _hub_errors(wanted: HubId) -> Iterator[None]:
    """Turn errors of huggingface_hub into a FormatError that names the hub id."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        kind = "file" if wanted.file else "folder"
        likely = nearest_name(str(wanted))
        problem = f"expected {NAMED}; found {str(wanted)!r}{likely}, which is no {kind} here"
        if constants.is_offline_mode():
            raise FormatError(
                f"{problem} and not in the cache {constants.HF_HUB_CACHE}; the hub is switched off by HF_HUB_OFFLINE: "
                f"download it once without HF_HUB_OFFLINE, or name a {kind}"
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"{problem} and cannot be fetched from the hub: {first}") from error


def _listed(wanted: HubId, folder: Path) -> list[str]:
    """Names of the repository's files; if the hub is unreachable, of those in the cache."""
    from huggingface_hub import HfApi

    try:
        return sorted(HfApi().list_repo_files(wanted.name, revision=wanted.revision))
    except Exception:  # errors of huggingface_hub and of its HTTP library have no common base class
        return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _index(wanted: HubId) -> Path | None:
    """The repository's model_index.json, or None; other errors are reported by the download that follows."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(wanted.name, INDEX, revision=wanted.revision))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None


def _components(index: Path, wanted: HubId) -> list[str]:
    """Names of the pipeline's components, which are also the names of their folders.

    Raises:
        FormatError: forq does not read this kind of pipeline. This is checked before gigabytes are downloaded.
    """
    try:
        contents = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{wanted}: expected {INDEX} to be JSON, found {error}") from error
    name = contents.get("_class_name") if isinstance(contents, dict) else None
    if name not in KNOWN:
        raise FormatError(f"{wanted}: expected a pipeline among {', '.join(KNOWN)}, found {name!r:.80}")
    # A component is [library, class]; [null, null] marks an absent component. Names must not act as patterns.
    return [
        key for key, value in contents.items() if isinstance(value, list) and value[:1] != [None] and key.isidentifier()
    ]
