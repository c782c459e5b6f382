"""Compare settings with those of an existing run: a run only resumes with its own settings.

Settings that may have another name or path in a later session are not compared here.
:meth:`forq.runs.run.Run.resume` compares checkpoint, data, device and kernel with the journal's
header, which holds their digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from forq.coordinates.profile import FILE, Profile
from forq.errors import ConfigError
from forq.runs import config as configs
from forq.runs.config import RunConfig, WatchConfig
from forq.runs.dotted_settings import flat, options

_BY_HEADER = ("checkpoint", "task.data", "device", "kernel", "threads", "profile", "adapter")
_ALIKE = ("recipe", "task.name")
"""Settings whose values may use dashes or underscores."""


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run: its settings and at least a line of its journal."""
    path = folder / "journal.jsonl"
    return (folder / "config.toml").is_file() and path.is_file() and b"\n" in path.read_bytes()


def refuse_taken(folder: Path) -> NoReturn:
    """Refuse to begin a run in a folder that holds something.

    Raises:
        ConfigError: always.
    """
    if holds_run(folder):
        raise ConfigError(f"{folder}: a run is there already: continue it with resume=True, or choose another out")
    raise ConfigError(f"{folder}: expected a new or empty folder, found other files; choose another out")


def differences(run: RunConfig, asked: RunConfig) -> dict[str, tuple[object, object]]:
    """The settings that differ, by dotted name: the run's value and the requested value.

    An option of a task that only one of them names has its default in the other.
    """
    left, right = dict(flat(run.model_dump())), dict(flat(asked.model_dump()))
    for settings, other in ((left, right), (right, left)):
        settings |= {name: value for name, value in _defaults(run).items() if name in other and name not in settings}
    return {
        name: (left.get(name), right.get(name))
        for name in [*left, *(name for name in right if name not in left)]
        if not _by_header(name) and not _alike(name, left.get(name), right.get(name))
    }


def require(
    folder: Path,
    run: RunConfig,
    asked: RunConfig,
    *,
    names: Mapping[str, str] | None = None,
    profile: Path | None = None,
) -> None:
    """Refuse settings that differ from the run's.

    Args:
        run: the settings of the run in ``folder``.
        asked: the requested settings.
        names: the user's names of settings, by dotted name; method settings appear as ``--set
            NAME``.
        profile: the requested profile; its factors are compared, not its path.

    Raises:
        ConfigError: settings differ; each is named with both values.
    """
    different = differences(run, asked)
    unequal = [
        f"{_called(name, names)}: the run has {_shown(mine)}, found {_shown(other)}"
        for name, (mine, other) in different.items()
    ]
    if profile is not None:
        own = folder / FILE
        if not own.is_file() or Profile.read(own).digest != Profile.read(profile).digest:
            mine = f"another, {own}" if own.is_file() else "none"
            unequal.append(f"{_called('profile', names)}: the run has {mine}, found {profile}")
    if unequal:
        raise ConfigError(
            f"{folder} holds a run with other settings. {'; '.join(unequal)}. A run keeps its settings: leave these "
            f"out to go on with it, or choose another {'out' if names is None else '--out'}"
            + (_further(folder) if "steps" in different else "")
        )


def moved_to(run: RunConfig, asked: RunConfig) -> RunConfig:
    """A run's settings with the requested paths of checkpoint, data, watched data and adapter, which may have moved."""
    task = run.task.model_copy(update={"data": asked.task.data})
    adapter = asked.adapter or run.adapter
    places = {"checkpoint": asked.checkpoint, "task": task, "adapter": adapter}
    return run.model_copy(update={**places, "watch": watches_moved_to(run, asked)})


def watches_moved_to(run: RunConfig, asked: RunConfig) -> dict[str, WatchConfig]:
    """The run's watched data sets with the requested paths of their data."""
    return {
        name: watch.model_copy(update={"data": asked.watch[name].data}) if name in asked.watch else watch
        for name, watch in run.watch.items()
    }


def changed(run: RunConfig, values: Mapping[str, object], sets: Iterable[str]) -> RunConfig:
    """A run's settings with some of them replaced.

    Args:
        values: new values by dotted name, such as ``task.reward``.
        sets: texts such as ``rule.lr=1e-3``; see :func:`forq.runs.config.complete`.

    Raises:
        ConfigError: a setting is unknown or its value invalid.
    """
    tree = run.model_dump()
    for name, value in values.items():
        *way, last = name.split(".")
        place: Any = tree
        for part in way:
            place = place[part]
        place[last] = value
    return configs.parse(configs.with_sets(tree, sets))


def _further(folder: Path) -> str:
    """How to get another number of steps: from what the run saved, or without finishing a run that saved nothing."""
    if (folder / "checkpoint").is_dir():
        command = f"forq tune {folder / 'checkpoint'} --out OTHER …"
    elif (folder / "adapter").is_dir():
        command = f"forq tune CHECKPOINT --move lora --adapter {folder / 'adapter'} --out OTHER …"
    else:
        return f". To save what it has reached without finishing it: forq replay {folder} --base CHECKPOINT --out OTHER"
    return f". To train further, begin a new run on its result: {command}"


def _by_header(name: str) -> bool:
    return name in _BY_HEADER or (name.startswith("watch.") and name.endswith(".data"))


def _defaults(run: RunConfig) -> dict[str, object]:
    """The defaults of the options of a run's task and of its watched tasks, by dotted name."""
    tasks = {"task.options.": run.task.name}
    tasks |= {f"watch.{name}.options.": watch.task for name, watch in run.watch.items()}
    return {
        front + option: parameter.default
        for front, task in tasks.items()
        for option, parameter in options(task).items()
        if parameter.default is not parameter.empty
    }


def _alike(name: str, mine: object, other: object) -> bool:
    """Whether a run has the requested value. A prior that it measured is what ``true`` asks for."""
    if name.endswith("options.prior") and isinstance(mine, str) and other is True:
        return True
    return _plain(name, mine) == _plain(name, other)


def _plain(name: str, value: object) -> object:
    return value.replace("-", "_") if name in _ALIKE and isinstance(value, str) else value


def _called(name: str, names: Mapping[str, str] | None) -> str:
    if names is not None and name in names:
        return names[name]
    for front, own in (("method.groups.", ""), ("method.", ""), ("task.options.", "task.")):
        if name.startswith(front):
            setting = own + name.removeprefix(front)
            return setting if names is None else f"--set {setting}"
    return name


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
