"""From settings to a finished run: load the checkpoint, open the data, train, save."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError
from forq.inspection.coverage import chosen, require_floats
from forq.inspection.memory import summary
from forq.models.convert.onload import quantized
from forq.models.diffusion.encoders import Encoders
from forq.models.families import kind_of
from forq.models.load import load
from forq.models.loaded import LoadedModel
from forq.models.quantized import kernels
from forq.models.tokenizer import open_tokenizer
from forq.plugins import registry
from forq.runs import config as configs
from forq.runs.agreement import holds_run, moved_to, require
from forq.runs.config import RunConfig, TaskConfig
from forq.runs.files import BASE, vacant
from forq.runs.run import Run
from forq.tasks import Task
from forq.tasks.kinds.pictures import pixels
from forq.tasks.objectives import rewards
from forq.tasks.objectives.rewarded import rewarded

# Arguments of a task's ``open`` that are not options of a user.
_GIVEN = ("seed", "kind")


def open_task(config: TaskConfig, model: LoadedModel | Checkpoint, seed: int) -> Task:
    """Open a task's data with the tokenizer that lies beside the model's checkpoint, for the model's kind.

    Args:
        model: a loaded model, or its checkpoint alone: tasks of text need no tensor of it.

    Raises:
        ConfigError: no such task; an option it does not know (the nearest is named) or of another type; no
            tokenizer; a task for causal language models, and a model that is none; a task on pictures, and no model.
        DataError: the data cannot be used.
    """
    ckpt = model if isinstance(model, Checkpoint) else model.checkpoint
    opener = registry.get("tasks", config.name).open
    _check_options(config, opener)
    kind, told = kind_of(ckpt.contents), {}
    draws = "encoded" in inspect.signature(opener).parameters
    if draws != (kind == "diffusion"):
        wanted = "a diffusion pipeline" if draws else "a language model"
        raise ConfigError(f"task {config.name!r} expects {wanted}, found {_class(ckpt)}")
    if draws:
        if isinstance(model, Checkpoint):
            raise ConfigError(f"task {config.name!r} is of pictures, which only a loaded pipeline can encode")
        return _diffusion(config, model, seed, opener)
    if "kind" in inspect.signature(opener).parameters:
        told = {"kind": kind}
    elif kind != "causal":
        raise ConfigError(
            f"task {config.name!r} expects a causal language model, found {_class(ckpt)}; an encoder can "
            "be tuned on a classification task, sst2 for example"
        )
    # Resolved first: a reward that cannot be imported should not wait for the data.
    reward = None if config.reward is None else rewards.resolve(config.reward)
    task = opener(Path(config.data), open_tokenizer(ckpt), seed=seed, **config.options, **told)
    task = task.budgeted(config.tokens_per_probe, config.micro_batch_tokens)
    return task if reward is None else rewarded(task, reward[0], str(config.reward), reward[1])


def _class(ckpt: Checkpoint) -> str:
    """What a checkpoint's configuration calls its model."""
    config = ckpt.contents.config
    heads = config.get("architectures")
    named = heads[0] if isinstance(heads, list) and heads else config.get("_class_name", config.get("model_type"))
    return str(named)


def _diffusion(config: TaskConfig, model: LoadedModel, seed: int, opener: Callable[..., Task]) -> Task:
    """A task on pictures: beside its own options it takes ``cache``, where encoded pictures and captions are kept."""
    if config.reward is not None:
        raise ConfigError("--reward is of tasks that are asked in words; a diffusion model has its own objective")
    options = dict(config.options)
    cache = options.pop("cache", None)
    encoded = Encoders(model.checkpoint, None if cache is None else Path(str(cache)), model.device, pixels)
    task = opener(Path(config.data), encoded, seed=seed, **options)
    task.budgeted(config.tokens_per_probe, config.micro_batch_tokens)  # type: ignore[attr-defined]
    return task


def _check_options(config: TaskConfig, opener: Callable[..., Task]) -> None:
    parameters = inspect.signature(opener).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _GIVEN]
    types = get_type_hints(opener)
    for option, value in config.options.items():
        if option == "cache" and "encoded" in inspect.signature(opener).parameters:
            continue
        if option not in known:
            raise ConfigError(
                f"task {config.name!r} has no option {option!r}{registry.nearest(option, known)}; known: "
                f"{', '.join(known)}"
            )
        wanted = types[option]
        try:
            TypeAdapter(wanted).validate_python(value, strict=True)
        except ValidationError as error:
            words = wanted.__name__ if isinstance(wanted, type) else str(wanted)
            raise ConfigError(f"task.{option}: expected {words}, found {value!r}") from error


def settings(
    recipe: str, sets: Iterable[str] = (), *, steps: int, eval_every: int | None = None, **values: Any
) -> RunConfig:
    """A run's settings with the defaults filled in: twenty scores a run, as many threads as torch takes."""
    every = max(1, steps // 20) if eval_every is None else eval_every
    threads = torch.get_num_threads()
    return configs.resolve(recipe, list(sets), steps=steps, eval_every=every, threads=threads, **values)


def tune(
    model: LoadedModel | str | Path,
    task: str | Task,
    data: str | Path = "",
    *,
    recipe: str = "qzo",
    steps: int = 2000,
    out: str | Path | None = None,
    seed: int = 0,
    eval_every: int | None = None,
    reward: str | None = None,
    move: str | None = None,
    profile: str | Path | None = None,
    tokens_per_probe: int | None = None,
    micro_batch_tokens: int | None = None,
    quantize_on_load: str | None = None,
    sets: Iterable[str] = (),
    resume: bool = False,
) -> Run:
    """Tune a quantized model with forward passes only, and save the best checkpoint.

    To see it happen, or to stop it by a rule of one's own, loop over ``Run.begin(…).events()`` instead.

    Args:
        model: from :func:`forq.load`, or where to load it from.
        task: a task's name, or an open task.
        data: file or folder of the task's data; not used with an open task.
        recipe: which method; ``forq ls recipes`` names them.
        steps: training steps.
        out: the run's folder, new or empty; by default a new temporary one.
        reward: the objective, in place of the task's own: see :mod:`forq.tasks.objectives.rewards`.
        move: what moves: kinds with commas between, as ``"scales,norms"``; by default the recipe's.
        profile: file of factors for single coordinates, see :mod:`forq.coordinates.profile`.
        tokens_per_probe: batches of so many tokens, in place of so many rows.
        micro_batch_tokens: of one forward at most: bounds memory, and changes losses in their last bits only.
        quantize_on_load: ``gptq4``, …: a float checkpoint is quantized into ``out/base`` first, and that is tuned; see
            :mod:`forq.models.convert.onload`.
        sets: changes to the recipe, as ``"rule.lr=1e-3"``, and options of the task, as ``"task.max_length=64"``.
        resume: go on with the run in ``out`` if one was begun there, and begin it otherwise. The same call, repeated
            after any interruption, ends in the same run.

    Returns:
        The finished run: ``run.journal``, ``run.best``, ``run.folder / "checkpoint"``, ``run.save(folder)``.

    Example:
        >>> run = forq.tune("opt-125m-gptq", "text", "notes.txt", steps=500)    # doctest: +SKIP

    Raises:
        ConfigError: a setting cannot be; with ``resume``, one is not the run's.
        JournalError: with ``resume``, base or data are not the run's.
    """
    if resume and out is None:
        raise ConfigError("resume: expected out, the run's folder, found none")
    sets = tuple(sets)
    folder = Path(tempfile.mkdtemp(prefix="forq-")) if out is None else Path(out)
    if quantize_on_load is not None:
        if isinstance(model, LoadedModel):
            raise ConfigError("quantize_on_load: expected where to load a float checkpoint from, found a model")
        if not resume and not vacant(folder):
            raise ConfigError(f"{folder} is in the way: choose another out, or resume=True")
        model = quantized(model, quantize_on_load, folder / BASE)
    loaded = model if isinstance(model, LoadedModel) else load(model)
    named = task if isinstance(task, str) else str(task.describe()["task"])
    config = settings(
        recipe,
        [*([] if move is None else [f"move={move}"]), *sets],
        steps=steps,
        eval_every=eval_every,
        checkpoint=str(loaded.checkpoint.path),
        task=TaskConfig(
            name=named,
            data=str(data),
            reward=reward,
            tokens_per_probe=tokens_per_probe,
            micro_batch_tokens=micro_batch_tokens,
        ),
        seed=seed,
        device=str(loaded.device),
        activations="int8" if "int8" in kernels(loaded) else "float",
        profile=None if profile is None else str(Path(profile).resolve()),
    )
    opened = open_task(config.task, loaded, seed) if isinstance(task, str) else task
    if resume and holds_run(folder):
        own = configs.read(folder / "config.toml")
        require(folder, own, config, profile=None if profile is None else Path(profile))
        run = Run.resume(folder, moved_to(own, config), loaded, opened)
    else:
        if not chosen(move, sets):
            require_floats(config.recipe, config.method, summary(loaded.checkpoint))
        run = Run.begin(folder, config, loaded, opened)
    for _ in run.events():
        pass
    run.finish()
    return run
