"""forq tune on several ranks: the chief shows and writes the run, the others measure for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from forq.cli import _screen
from forq.errors import ConfigError

if TYPE_CHECKING:
    from forq.cli._resumed import Asked
    from forq.runs.config import RunConfig
    from forq.runs.ranks.team import Team


@dataclass(frozen=True, slots=True)
class Way:
    """How a run goes: its folder, and what the command line says about screen and files."""

    out: Path
    resume: bool
    tensorboard: bool
    as_json: bool
    chosen: bool


def several() -> bool:
    """Whether a launcher began more than one process, or could begin another (torchrun with --nnodes 1:4)."""
    size = os.environ.get("WORLD_SIZE", "1")
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ and size.isdecimal() and int(size) > 0


def tune(asked: Asked, way: Way, timeout: float | None) -> None:
    """The part of this rank in a run of several."""
    from forq.cli import _resumed, _tuning
    from forq.runs.ranks import session
    from forq.runs.ranks.device import own_device
    from forq.runs.ranks.team import Team

    if asked.device in (None, "auto"):
        asked = replace(asked, device=own_device())
    with Team.join(timeout) as team:
        held = session.elected(team, way.out)
        config = None
        if team.leads:
            config = _settings(asked, way, held)
            if held and (result := _resumed.result(way.out, config)) is not None:
                team.transport.tell(b"finished")
                _screen.err.print(_resumed.finished_line(way.out, config), highlight=False, soft_wrap=True)
                _tuning.show(result, config, as_json=way.as_json)
                return
        if team.transport.tell(b"begins") == b"finished":
            return
        config = session.agreed(
            team, config, lambda run: _resumed.of_rank(way.out, run, asked), reward=asked.options.get("--reward")
        )
        if team.leads:
            _tuning.tune(
                config,
                way.out,
                resume=held,
                tensorboard=way.tensorboard,
                as_json=way.as_json,
                chosen=way.chosen,
                team=team,
            )
        else:
            _follow(team, config, way.out)


def _settings(asked: Asked, way: Way, held: bool) -> RunConfig:
    """On the chief: the settings of the run in the folder, or of the run that begins.

    Raises:
        ConfigError: the folder is not free.
    """
    from forq.cli import _resumed
    from forq.runs.folder import vacant

    if held:
        if not way.resume:
            raise ConfigError(f"{way.out}: {_screen.TAKEN}")
        return _resumed.settings(way.out, asked)
    if not vacant(way.out):
        raise ConfigError(f"{way.out}: {_screen.OTHER}")
    if way.resume:
        _screen.err.print(f"{way.out}: no run was begun here yet; it begins now", highlight=False, soft_wrap=True)
    return _resumed.first(asked)


def _follow(team: Team, config: RunConfig, out: Path) -> None:
    from forq.models.load import load
    from forq.models.options import on_device
    from forq.runs.open_task import open_task
    from forq.runs.ranks import session

    rounded = on_device(config.activations, config.device)
    model = load(config.checkpoint, config.device, kernel=config.kernel, activations=rounded)
    session.follow(team, model, config, lambda run: open_task(run.task, model, run.seed), out)


def show_shares(team: Team) -> None:
    """On the chief: what the ranks did, and whether more of them could have been used."""
    if team.size == 1:
        return
    total = sum(account.forwards for account in team.timings.accounts)
    shares = ", ".join(
        f"rank {rank} {account.forwards / max(1, total):.0%}" for rank, account in enumerate(team.timings.accounts)
    )
    _screen.err.print(f"forward passes: {shares}", highlight=False, soft_wrap=True)
    if team.idle:
        _screen.err.print(
            f"{team.idle} of {team.size} ranks had nothing to measure; more directions (estimator.directions) would "
            "use them",
            highlight=False,
            soft_wrap=True,
        )
