"""forq ls: what there is to choose from."""

from __future__ import annotations

import ast
import json
from typing import Annotated

import typer

from forq.errors import ConfigError
from forq.plugins import registry

FAMILIES = ("formats", "recipes", "rules", "estimators", "noises", "tasks", "attacks")

COMPARED = {"recipes": ("mezo", "quzo", "qzo_lora", "qzo_paper", "zo_signsgd", "zoqo_paper")}
"""What is there to compare with: no row of results/README.md, section x, recommends it. ``--all`` lists it too."""


def ls(
    family: Annotated[str | None, typer.Argument(help=f"One of {', '.join(FAMILIES)}; all by default.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="List what is only there to compare with, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """List formats, recipes, rules, estimators, noises, tasks and attacks, with what each is."""
    if family is not None and family not in FAMILIES:
        raise ConfigError(
            f"nothing is listed as {family!r}{registry.nearest(family, FAMILIES)}; known: {', '.join(FAMILIES)}"
        )
    listing = {
        kind: {name: _summary(kind, name) for name in registry.names(kind)}
        for kind in FAMILIES
        if family in (None, kind)
    }
    if as_json:
        typer.echo(json.dumps(listing, indent=2, ensure_ascii=False))
        return
    for kind, plugins in listing.items():
        typer.echo(typer.style(kind, bold=True))
        width = max(map(len, plugins))
        hidden = () if everything else COMPARED.get(kind, ())
        for name, summary in plugins.items():
            if name not in hidden:
                typer.echo(f"  {registry.shown(kind, name):<{width}} {summary}")
        if hidden:
            names = ", ".join(registry.shown(kind, name) for name in hidden)
            typer.echo(f"  to compare with: {names} (forq ls {kind} --all)")


def _summary(family: str, name: str) -> str:
    """First line of the plug-in's docstring, read without importing it (and so without torch)."""
    source = registry.source(family, name)
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ")
