"""What ranks tell each other before the first forward pass, and the loop of a rank that is not the chief."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forq.coordinates.profile import Profile
from forq.errors import ConfigError, ForqError
from forq.models.loaded import LoadedModel
from forq.runs import config as configs
from forq.runs import journal
from forq.runs.agreement import holds_run
from forq.runs.config import RunConfig
from forq.runs.folder import put_json
from forq.runs.header import header, of_rank, require_same
from forq.runs.journal import decode, encode
from forq.runs.metrics import Scored
from forq.runs.ranks.team import Team
from forq.runs.ranks.timings import FILE
from forq.runs.trainer import Past, Trainer
from forq.tasks import Task
from forq.tasks.objectives.rewards import SHIPPED

LOG = "rank.log"
"""File that a rank leaves in its run folder where it does not share the chief's: it says who has the run."""


def elected(team: Team, folder: Path) -> bool:
    """Choose the chief by the journal that each rank has in its run folder; whether any has a run.

    Raises:
        RunError: no rank has a run, and one of them once followed a run whose folder is elsewhere; it is named.
    """
    held = team.elect(len(journal.read(folder / "journal.jsonl").lines) if holds_run(folder) else None)
    if not held:
        team.agree(_elsewhere(folder))
    return held


def agreed(
    team: Team, config: RunConfig | None, check: Callable[[RunConfig], RunConfig], *, reward: str | None = None
) -> RunConfig:
    """The chief's settings on every rank, with the paths, device and kernel of each.

    Args:
        config: the run's settings, on the chief.
        check: the settings of this rank from the run's; it refuses what its own command line says otherwise.
        reward: the reward that this rank's own call names; code of another one is never run here.

    Raises:
        RunError: a rank asks for other settings, or lacks data; it is named.
    """
    told = team.transport.tell(b"" if config is None else json.dumps(config.model_dump(mode="json")).encode())
    refusal = None
    try:
        if config is not None:
            _require_alone(team, config)
        else:
            run = configs.parse(json.loads(told))
            _require_named(run, reward)
            config = check(run)
    except ForqError as error:
        refusal = str(error)
    team.agree(refusal)
    assert config is not None
    return config


def lead(team: Team, trainer: Trainer, first_line: Mapping[str, object], past: Past) -> None:
    """On the chief: give every rank the settings as the run has them, the header and all lines and scores on record.

    Raises:
        RunError: a rank has another base, other data or another law; it is named.
    """
    body = {
        "config": trainer.config.model_dump(mode="json"),
        "header": dict(first_line),
        "lines": [encode(line) for line in past.lines],
        "scores": [asdict(scored) for scored in past.scores.values()],
    }
    team.transport.tell(zlib.compress(json.dumps(body).encode()))
    team.agree(None)
    team.introduce(of_rank(trainer))


def follow(
    team: Team, model: LoadedModel, own: RunConfig, open_task: Callable[[RunConfig], Task], folder: Path
) -> None:
    """On another rank: rebuild the run from the chief's lines and this rank's own base, then train along to the end.

    Where this rank does not see the chief's folder, its own gets a note that says who has the run.

    Args:
        folder: the run's folder as this rank names it.
        own: this rank's settings, from :func:`agreed`.
        open_task: opens the task with settings in which the chief has fixed what opening measures.

    Raises:
        RunError: this rank or another refuses.
        JournalError: the replay does not rebuild a digest.
    """
    told = json.loads(zlib.decompress(team.transport.tell(b"")))
    refusal, trainer = None, None
    try:
        config = _placed(configs.parse(told["config"]), own)
        profile = None if config.profile is None else Profile.read(Path(config.profile))
        trainer = Trainer(config, model, open_task(config), profile=profile, team=team)
        now = header(trainer)
        require_same(model.checkpoint.path, told["header"], now, of_ranks=True, because="the chief has")
    except (ForqError, OSError) as error:
        refusal = str(error)
    team.agree(refusal)
    assert trainer is not None
    team.introduce(of_rank(trainer))
    scores = {scored.trained: scored for scored in map(Scored.of, told["scores"])}
    events = trainer.events(Past(tuple(map(decode, told["lines"])), 0, scores))
    next(events)  # the chief has begun the run
    if not holds_run(folder):
        _remember(folder, str(team.facts[team.chief]["host"]))
    for _ in events:
        pass


def record(team: Team, folder: Path) -> None:
    """On the chief: write what each rank did into ranks.json; nothing where it is alone."""
    if team.size == 1:
        return
    timings = team.timings
    put_json(folder / FILE, {"steps": timings.steps, "ranks": timings.rows(team.facts)})


def _remember(folder: Path, host: str) -> None:
    """On a rank that does not see the chief's folder: note who has the run."""
    folder.mkdir(parents=True, exist_ok=True)
    put_json(folder / LOG, {"run": f"on {host}"})


def _elsewhere(folder: Path) -> str | None:
    """Why no run may begin: this rank once followed a run whose folder no rank sees now. None: it did not."""
    try:
        where: Any = json.loads((folder / LOG).read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (
        f"{folder}: this machine followed a run whose folder is {where}, and no rank sees that folder now: bring that "
        "machine back, copy the folder here, or choose another --out to begin anew"
    )


def _require_alone(team: Team, config: RunConfig) -> None:
    if config.watch and team.size > 1:
        raise ConfigError(
            f"watch: expected one process, found {team.size} ranks; leave it out, and use forq eval on what is saved"
        )


def _require_named(run: RunConfig, reward: str | None) -> None:
    if run.task.reward is not None and run.task.reward not in (*SHIPPED, reward):
        raise ConfigError(
            f"reward: expected {run.task.reward}, as the chief has it, found {reward or 'none'}; its code would be "
            "run on this machine too, so name it here as well"
        )


def _placed(run: RunConfig, own: RunConfig) -> RunConfig:
    """The run's settings with what is this rank's own: places, device, kernel, threads."""
    names = ("checkpoint", "device", "kernel", "threads", "profile", "adapter")
    task = run.task.model_copy(update={"data": own.task.data, "reward": own.task.reward})
    return run.model_copy(update={"task": task, **{name: getattr(own, name) for name in names}})
