"""The options --watch and --watch-limit as they are typed, and what the screen says of watched data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from forq.cli import _arguments as given
from forq.cli import _screen

if TYPE_CHECKING:
    from forq.runs.config import WatchConfig
    from forq.runs.metrics import Scored
    from forq.runs.outcome import Result
    from forq.runs.run import Run


def named(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """Values by name, from texts of the form ``NAME=VALUE``.

    Raises:
        typer.BadParameter: a text has another form, or a name stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value or name in found:
            problem = "found the name twice in" if name in found else "found"
            raise typer.BadParameter(f"expected {form}, {problem} {text!r}", param_hint=option)
        found[name] = value
    return found


def limits(texts: Sequence[str]) -> dict[str, float]:
    """Limits by name.

    Raises:
        typer.BadParameter: a text is not ``NAME=NUMBER``.
    """
    found = named(texts, "--watch-limit", "NAME=KL")
    try:
        return {name: float(value) for name, value in found.items()}
    except ValueError as error:
        raise typer.BadParameter(
            f"expected NAME=KL with a number, found {texts}", param_hint="--watch-limit"
        ) from error


def settings(
    watch: Mapping[str, str], limit: Mapping[str, float], begun: Mapping[str, WatchConfig] | None = None
) -> dict[str, WatchConfig]:
    """The settings of the watched data sets of a command line; data is also looked for in ``$FORQ_DATA``."""
    from forq.plugins import registry
    from forq.runs.watch import parts
    from forq.runs.watch import settings as checked

    tasks = registry.names("tasks")
    for name, text in watch.items():
        if ":" not in text and text.strip().replace("-", "_") not in tasks:
            raise typer.BadParameter(
                f"expected NAME=TASK:DATA, such as {name}=text:notes.txt, found '{name}={text}'", param_hint="--watch"
            )
    places = {name: parts(text) for name, text in watch.items()}
    return checked(
        {name: (task, given.data_path(data or None, task)) for name, (task, data) in places.items()}, limit, begun
    )


def introduce(run: Run) -> None:
    """Which data sets a run watches, on stderr."""
    for watch in run.trainer.watches:
        settings = run.config.watch[watch.name]
        until = "" if watch.limit is None else f"; the run ends beyond a divergence of {watch.limit:g}"
        line = f"watches {watch.name}: at most {watch.rows} validation rows of {settings.task}, {settings.data}{until}"
        _screen.err.print(line, highlight=False, soft_wrap=True, markup=False)


def latest(scored: Scored) -> str:
    """The divergences of an evaluation, for the progress bar."""
    return ", ".join(f"{name} KL {found.kl:.3f}" for name, found in scored.watch.items() if found.kl is not None)


def sentence(result: Result) -> str | None:
    """Why a run ended early, if a watched data set was beyond its limit."""
    stopped = result.get("stopped")
    if stopped is None:
        return None
    return (
        f"ended at step {stopped['step']:,}: the divergence on {stopped['watch']} was {stopped['kl']:.4f}, beyond its "
        f"limit of {stopped['limit']:g}; what is saved is the best within it"
    )
