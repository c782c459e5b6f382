"""Open a task's data for a model, with the model's kind and tokenizer; options are checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.images import GraphImages
from forq.errors import ConfigError
from forq.models.diffusion.encoders import Encoders
from forq.models.families import classes_of, kind_of
from forq.models.loaded import LoadedModel
from forq.models.pooling import of_decoder
from forq.models.positions import positions, usual_length
from forq.models.tokenizer import open_tokenizer
from forq.plugins import registry
from forq.runs.config import TaskConfig
from forq.runs.dotted_settings import Option
from forq.tasks import Settles, Task
from forq.tasks.images.classification import ImageRows
from forq.tasks.images.pictures import pixels
from forq.tasks.images.timm_file import label_names
from forq.tasks.objectives import rewards
from forq.tasks.objectives.rewarded import rewarded
from forq.tasks.rows.rows import Rows
from forq.tasks.rows.taken import Whole

T = TypeVar("T")

_GIVEN = ("seed", "kind", "head", "graph", "described", "whole")
"""Arguments of a task's ``open`` that are not user options."""

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def open_task(
    config: TaskConfig,
    model: LoadedModel | Checkpoint,
    seed: int,
    described: Mapping[str, object] | None = None,
    *,
    whole: bool = False,
) -> Task:
    """Open a task's data with the tokenizer of the model's checkpoint, for the model's kind.

    Args:
        model: a loaded model, or only its checkpoint: text tasks need no tensor of the model.
        described: the description of the task of the run that saved the model. Its classes are then the
            task's, whatever classes the data has.
        whole: the data is only scored: where it names no splits, all its rows are test rows
            (:class:`forq.tasks.rows.taken.Whole`). Tasks for which :func:`may_be_whole` is false take no notice.

    Raises:
        ConfigError: the task is unknown; an option is unknown (the nearest is named) or has another
            type; the tokenizer is missing; the task does not fit the model's kind; rows are longer than the
            model's positions (:func:`within`); or a picture task got a checkpoint without a model.
        DataError: the data cannot be used.
    """
    ckpt = model if isinstance(model, Checkpoint) else model.checkpoint
    opener = registry.get("tasks", config.name).open
    check_options(config, opener)
    kind = kind_of(ckpt.contents)
    extra: dict[str, Any] = {}
    parameters = inspect.signature(opener).parameters
    if whole and "whole" in parameters:
        extra["whole"] = Whole(cast("int | None", config.options.get("test_rows")))
    if ("graph" in parameters) != (kind == "images"):
        wanted = "an ONNX graph that takes images" if kind != "images" else "a language model"
        more = "" if kind != "images" else "; a network on images can be tuned on classify-images"
        raise ConfigError(f"task {config.name!r} expects {wanted}, found {ckpt.path}{more}")
    if kind == "images":
        return _images(config, ckpt, seed, opener, described, extra)
    draws = "encoded" in parameters
    if draws != (kind == "diffusion"):
        wanted = "a diffusion pipeline" if draws else "a language model"
        raise ConfigError(f"task {config.name!r} expects {wanted}, found {_class(ckpt)}")
    if draws:
        if isinstance(model, Checkpoint):
            raise ConfigError(f"task {config.name!r} is on pictures, which only a loaded pipeline can encode")
        return _diffusion(config, model, seed, opener, extra)
    if of_decoder(ckpt):
        raise ConfigError(
            f"task {config.name!r} expects a language model, found {_class(ckpt)} with a modules.json that makes "
            "sentence vectors; forq makes those of encoders only: remove modules.json to tune a language model"
        )
    if "kind" in parameters:
        extra |= given(ckpt)
    elif kind != "causal":
        raise ConfigError(
            f"task {config.name!r} expects a causal language model, found {_class(ckpt)}; an encoder or a model with "
            "a classification head can be tuned on a classification task: classify, or sst2"
        )
    if "described" in parameters:
        extra["described"] = described
    # The reward is resolved first, so that a failing import is reported before the data is read.
    reward = None if config.reward is None else rewards.resolve(config.reward)
    tokenizer = open_tokenizer(ckpt) if isinstance(model, Checkpoint) else model.tokenizer
    task = within(
        lambda options: opener(Path(config.data), tokenizer, seed=seed, **options, **extra), config.options, model
    )
    task = task if isinstance(model, Checkpoint) else settled_task(task, model)
    task = task.budgeted(config.tokens_per_probe, config.micro_batch_tokens)
    return task if reward is None else rewarded(task, reward[0], str(config.reward), reward[1])


def may_be_whole(task: str) -> bool:
    """Whether data of a task may name no splits, so that all its rows can be scored."""
    return "whole" in inspect.signature(registry.get("tasks", task).open).parameters


def within(
    opened: Callable[[Mapping[str, Option]], T], options: Mapping[str, Option], model: LoadedModel | Checkpoint
) -> T:
    """A task whose rows fit a model's positions.

    The default of ``max_length`` gives way to the positions, or to the length at which the model's owner cuts a text,
    only where a row needs it: the digest of a task whose rows fit does not depend on the model.

    Args:
        opened: opens the task with the given options.
        options: those that the user set.

    Raises:
        ConfigError: the user set a ``max_length`` above the positions, and a row needs it.
    """
    task, limit, usual = opened(options), positions(model), usual_length(model)
    if usual is None or not isinstance(task, Rows):
        return task
    longest = task.longest
    if "max_length" not in options and longest > usual:
        task = opened({**options, "max_length": usual})
        assert isinstance(task, Rows)
    elif limit is not None and longest > limit:
        raise ConfigError(
            f"task.max_length={options['max_length']}: expected rows of at most {limit:,} tokens, the model's "
            f"positions, found one of {longest:,}; lower it: --set task.max_length={limit}"
        )
    return cast(T, task if limit is None else replace(task, positions=limit))


def settled_task(task: T, model: LoadedModel) -> T:
    """A task with the numbers that it measures on a model; most tasks measure none.

    Raises:
        ConfigError: a row is longer than the model's positions.
    """
    limit = positions(model) if isinstance(task, Rows) else None
    if isinstance(task, Rows) and limit is not None and (longest := task.longest) > limit:
        raise ConfigError(
            f"{task.name}: expected rows of at most {limit:,} tokens, the model's positions, found one of {longest:,}; "
            f"open the task with max_length={limit}"
        )
    return cast(T, task.settled(model)) if isinstance(task, Settles) else task


def given(ckpt: Checkpoint) -> dict[str, Any]:
    """What a classification task is told of a model: its kind, and the classes of its own head."""
    kind = kind_of(ckpt.contents)
    return {"kind": kind} | ({"head": classes_of(ckpt.contents.config)} if kind == "classifier" else {})


def _class(ckpt: Checkpoint) -> str:
    """The model's class name in a checkpoint's configuration."""
    config = ckpt.contents.config
    heads = config.get("architectures")
    named = heads[0] if isinstance(heads, list) and heads else config.get("_class_name", config.get("model_type"))
    return str(named)


def _images(
    config: TaskConfig,
    ckpt: Checkpoint,
    seed: int,
    opener: Callable[..., Task],
    described: Mapping[str, object] | None,
    extra: Mapping[str, Any],
) -> Task:
    """Open a task on images, for the graph of a checkpoint."""
    for option, value in (
        ("tokens_per_probe", config.tokens_per_probe),
        ("micro_batch_tokens", config.micro_batch_tokens),
    ):
        if value is not None:
            raise ConfigError(f"{option}: images have no tokens; set task.batch_rows, and task.at_once for one run")
    reward = None if config.reward is None else rewards.resolve(config.reward)
    assert ckpt.graph is not None
    graph = GraphImages.of(ckpt.graph, ckpt.folder)
    head = classes_of(ckpt.config) if "id2label" in ckpt.config else label_names(ckpt.config)
    task = opener(Path(config.data), graph, seed=seed, head=head, described=described, **config.options, **extra)
    if reward is None and isinstance(task, ImageRows):
        graph.check_one_class(task.output)
    return task if reward is None else rewarded(task, reward[0], str(config.reward), reward[1])


def _diffusion(
    config: TaskConfig, model: LoadedModel, seed: int, opener: Callable[..., Task], extra: Mapping[str, Any]
) -> Task:
    """Open a task on pictures; its extra option ``cache`` is the folder for encoded pictures and captions."""
    if config.reward is not None:
        raise ConfigError(
            "reward: expected a text task, found one of pictures, which has its own objective; leave it out"
        )
    options = dict(config.options)
    cache = options.pop("cache", None)
    encoded = Encoders(model.checkpoint, None if cache is None else Path(str(cache)), model.device, pixels)
    task = opener(Path(config.data), encoded, seed=seed, **options, **extra)
    task.budgeted(config.tokens_per_probe, config.micro_batch_tokens)  # type: ignore[attr-defined]
    return task


def check_options(config: TaskConfig, opener: Callable[..., Task]) -> None:
    """Refuse options that a task does not have, or values of another type.

    Raises:
        ConfigError: there is such an option; the nearest name is given.
    """
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
            raise ConfigError(f"task.{option}: expected {_in_words(wanted)}, found {value!r}") from error


def _in_words(hint: Any) -> str:
    """A type as messages name it: ``int | None`` is a whole number."""
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if isinstance(hint, UnionType):
        return " or ".join(_in_words(one) for one in get_args(hint) if one is not NoneType)
    return _WORDS.get(hint, str(hint))
