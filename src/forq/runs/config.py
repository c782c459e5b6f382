"""The resolved settings of a run, as config.toml and the journal's header hold them."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import torch
from pydantic import Field

from forq.errors import ConfigError
from forq.layers.linear import Activations, Choice
from forq.models.adapters import peft
from forq.recipes import default_recipe, recipe
from forq.recipes.plan import steps_within
from forq.recipes.settings import Settings, checked
from forq.runs import dotted_settings
from forq.runs.dotted_settings import Option, flat, parsed, put
from forq.scalars.chain import Frozen
from forq.tokens.model import Kind

STEPS = 2000
"""Training steps of a run where neither steps nor forward passes are given."""


class TaskConfig(Frozen):
    """A task and its data.

    Attributes:
        options: arguments of the task's ``open``.
        reward: objective in place of the task's own.
        tokens_per_probe: token budget of a batch; see :mod:`forq.tasks.rows.rows`.
        micro_batch_tokens: token budget of a forward pass; see :mod:`forq.tasks.rows.rows`.
    """

    name: str
    data: str
    options: Mapping[str, Option] = Field(default_factory=dict)
    reward: str | None = None
    tokens_per_probe: int | None = None
    micro_batch_tokens: int | None = None


class WatchConfig(Frozen):
    """A data set that is scored at every evaluation beside the task; see :mod:`forq.runs.watch`.

    Attributes:
        rows: number of validation rows that are scored.
        limit: divergence from the base, in nats a token, beyond which the run ends; None: no limit.
        options: arguments of the task's ``open``.
    """

    task: str
    data: str
    rows: Annotated[int, Field(ge=1)] = 32
    limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    options: Mapping[str, Option] = Field(default_factory=dict)

    def as_task(self) -> TaskConfig:
        """The task, as :func:`forq.runs.open_task.open_task` opens it."""
        return TaskConfig(name=self.task, data=self.data, options=self.options)


class RunConfig(Frozen):
    """All settings that a run depends on, apart from the bytes of its checkpoint and data.

    Attributes:
        steps: number of training steps, without calibration.
        eval_every: number of steps between two scores on the validation rows.
        profile: file of factors for the units of single coordinates; see
            :mod:`forq.coordinates.profile`.
        adapter: folder of a LoRA adapter in PEFT's format that the run goes on from, in place of new ones.
        threads: CPU threads of torch. Results depend on it in the last bit, so a resumed run keeps
            it.
        watch: data sets that are scored beside the task, by name.
    """

    checkpoint: str
    task: TaskConfig
    recipe: str
    steps: Annotated[int, Field(ge=1, lt=1 << 40)]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    device: str = "auto"
    kernel: Choice = "auto"
    activations: Activations = "float"
    eval_every: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    profile: str | None = None
    adapter: str | None = None
    method: Settings
    watch: Mapping[str, WatchConfig] = Field(default_factory=dict)


def complete(
    name: str | None,
    sets: Iterable[str] = (),
    *,
    task: TaskConfig,
    kind: Kind = "causal",
    steps: int | None = None,
    forwards: int | None = None,
    eval_every: int | None = None,
    move: str | None = None,
    settings: Settings | Mapping[str, object] | None = None,
    **values: object,
) -> RunConfig:
    """A run's settings with the defaults filled in.

    By default a run has twenty scores and torch's number of threads.

    Args:
        name: name of the recipe; None: see :func:`forq.recipes.default_recipe`.
        sets: changes as text, as on the command line: ``rule.lr=1e-3``, ``task.max_length=64``.
        task: the task and its data.
        kind: of the model, where no recipe is named.
        steps: number of training steps; by default 2,000.
        forwards: budget of forward passes, in place of ``steps``.
        eval_every: number of steps between two scores.
        move: kinds of leaves that move, in place of the recipe's.
        settings: changes as a nested mapping, or a whole method in place of the recipe's.
        values: the other fields of :class:`RunConfig`.

    Raises:
        ConfigError: a key is unknown (the nearest is named), a value invalid, or both steps and a budget are given.
    """
    if steps is not None and forwards is not None:
        raise ConfigError(f"expected steps or forwards (--steps, --forwards), found both: {steps} and {forwards}")
    sets = list(sets)
    changes = {} if settings is None or isinstance(settings, Settings) else dict(flat(settings))
    if name is None:
        keys = [*changes, *(text.partition("=")[0].strip() for text in sets)]
        moved = changes.get("move", move) or next((x.partition("=")[2] for x in sets if x.startswith("move=")), "")
        name = default_recipe(kind=kind, reward=task.reward is not None, changed=keys, move=str(moved))
    method = settings if isinstance(settings, Settings) else recipe(name).settings
    tree: dict[str, Any] = {**values, "task": task, "recipe": name, "method": method.model_dump()}
    tree["steps"], tree["threads"] = STEPS if steps is None else steps, torch.get_num_threads()
    tree["eval_every"] = 1
    if move is not None:
        tree["method"]["move"] = move
    tree = with_sets(with_changes(tree, changes.items()), sets)
    config = parse(tree)
    if config.adapter is not None:
        config = _going_on(config, [*changes, *(text.partition("=")[0].strip() for text in sets)])
    if forwards is not None:
        config = config.model_copy(update={"steps": steps_within(config.method, forwards)})
    every = max(1, config.steps // 20) if eval_every is None else eval_every
    return parse(config.model_copy(update={"eval_every": every}).model_dump())


def _going_on(config: RunConfig, named: Sequence[str]) -> RunConfig:
    """The settings of a run that goes on from an adapter; rank and alpha are the adapter's.

    Args:
        named: dotted names of the settings that the user changes.

    Raises:
        ConfigError: the run does not move adapters, moves them on a grid, or a setting of new adapters is named.
        FormatError: the folder holds no adapter that forq can compute.
    """
    assert config.adapter is not None
    if "lora" not in config.method.kinds:
        raise ConfigError("adapter: expected adapters to move, found others; add --move lora")
    if own := [name for name in named if name.startswith("lora.") and name != "lora.alone"]:
        raise ConfigError(f"adapter: expected no setting of new adapters, found {', '.join(own)}: the folder has them")
    if config.method.lora.bits is not None:
        raise ConfigError(
            f"adapter: expected a recipe that moves adapters in float32, found {config.recipe} on a grid of "
            f"{config.method.lora.bits} bits; take --recipe qzo-slopes"
        )
    found = peft.configured(Path(config.adapter))
    lora = {**config.method.lora.model_dump(), "rank": found.rank, "alpha": found.alpha}
    return parse({**config.model_dump(), "method": {**config.method.model_dump(), "lora": lora}})


def with_changes(tree: Mapping[str, object], changes: Iterable[tuple[str, object]]) -> dict[str, object]:
    """A run's settings as plain values, with changes by dotted name.

    Raises:
        ConfigError: a key of the method is unknown (the nearest is named).
    """
    changed = copy.deepcopy(dict(tree))
    if isinstance(changed["task"], TaskConfig):
        changed["task"] = changed["task"].model_dump()
    watches: Mapping[str, Any] = changed.get("watch", {})  # type: ignore[assignment]
    changed["watch"] = {
        name: watch.model_dump() if isinstance(watch, WatchConfig) else watch for name, watch in watches.items()
    }
    for key, value in changes:
        put(changed, key, value)
    return changed


def with_sets(tree: Mapping[str, object], sets: Iterable[str]) -> dict[str, object]:
    """A run's settings as plain values, with changes of the form ``a.b=c``.

    Raises:
        ConfigError: a key of the method is unknown (the nearest is named), or a text is not
            ``key=value``.
    """
    changes = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected NAME=VALUE, found {text!r}")
        changes.append((key.strip(), parsed(value.strip())))
    return with_changes(tree, changes)


def task_config(name: str, data: str, sets: Sequence[str], **others: Any) -> TaskConfig:
    """A task and its options from ``task.a=b`` texts.

    Args:
        others: further fields of :class:`TaskConfig`.

    Raises:
        ConfigError: a text is not a ``task.option=value``.
    """
    options = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.startswith("task."):
            likely = f" (did you mean 'task.{text}'?)" if equals and key in dotted_settings.options(name) else ""
            raise ConfigError(f"--set: expected task.OPTION=VALUE here, found {text!r}{likely}")
        options[key.removeprefix("task.")] = parsed(value)
    return TaskConfig(name=name, data=data, options=options, **others)


def parse(tree: Mapping[str, object]) -> RunConfig:
    """Check plain values and make a run's settings of them.

    Raises:
        ConfigError: keys are unknown or values invalid; the message lists all of them.
    """
    return checked(RunConfig, tree)


def write(config: RunConfig, path: Path) -> None:
    """Write config.toml whole or not at all."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(tomli_w.dumps(config.model_dump(exclude_none=True, exclude=None if config.watch else {"watch"})))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read(path: Path) -> RunConfig:
    """Read config.toml.

    Raises:
        ConfigError: the file is missing, is not TOML, or does not hold a run's settings.
    """
    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot read the run's settings: {error}") from error
