"""forq ls: what there is to choose from."""

from __future__ import annotations

import ast
import json
from typing import Annotated

import typer

from forq.cli import _arguments as given
from forq.errors import ConfigError
from forq.plugins import registry

FAMILIES = ("formats", "recipes", "rules", "estimators", "noises", "tasks", "attacks")


def ls(
    family: Annotated[
        str | None, typer.Argument(metavar="FAMILY", help=f"One of {', '.join(FAMILIES)}; all by default.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list the recipes that are only there to compare with.")
    ] = False,
    as_json: given.Json = False,
) -> None:
    """List formats, recipes, rules, estimators, noises, tasks and attacks, with what each is."""
    if family is not None and family not in FAMILIES:
        raise ConfigError(
            f"nothing is listed as {family!r}{registry.nearest(family, FAMILIES)}; known: {', '.join(FAMILIES)}"
        )
    listing = {
        kind: {registry.shown(kind, name): registry.summary(kind, name) for name in registry.names(kind)}
        for kind in FAMILIES
        if family in (None, kind)
    }
    if as_json:
        typer.echo(json.dumps(listing, indent=2, ensure_ascii=False))
        return
    for kind, plugins in listing.items():
        typer.echo(typer.style(kind, bold=True))
        width = max(map(len, plugins))
        hidden = [name for name in plugins if kind == "recipes" and not everything and baseline(name)]
        for name, summary in plugins.items():
            if name not in hidden:
                typer.echo(f"  {name:<{width}} {summary}")
        if hidden:
            typer.echo(f"  only to compare with: {', '.join(hidden)} (forq ls {kind} --all)")


def baseline(recipe: str) -> bool:
    """Whether a recipe is only there to compare with (``Recipe.baseline``), as its file says."""
    # The file is not imported: that would import torch.
    tree = ast.parse(registry.source("recipes", recipe.replace("-", "_")).read_text(encoding="utf-8"))
    words = (node for node in ast.walk(tree) if isinstance(node, ast.keyword))
    return any(word.arg == "baseline" and ast.literal_eval(word.value) for word in words)
