"""``forq.tune``: tune a model on a task and return the finished run."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from forq.errors import ConfigError
from forq.inspection.coverage import require_floats
from forq.inspection.memory import summary
from forq.models.convert.onload import quantized
from forq.models.load import load
from forq.models.loaded import LoadedModel
from forq.models.quantized import activations
from forq.recipes.settings import Settings
from forq.runs import config as configs
from forq.runs import journal
from forq.runs.agreement import holds_run, moved_to, refuse_taken, require
from forq.runs.base_values import restore_base
from forq.runs.config import TaskConfig
from forq.runs.data import Data, located, path_of
from forq.runs.fixed_options import with_fixed_options
from forq.runs.folder import BASE, vacant
from forq.runs.older_runs import with_old_meanings
from forq.runs.open_task import open_task, settled_task
from forq.runs.outcome import conclude, outcome
from forq.runs.run import Run
from forq.runs.watch import parts
from forq.runs.watch import settings as watch_settings
from forq.tasks import Task

if TYPE_CHECKING:  # a torch without torch.distributed tunes in one process
    from forq.runs.ranks.team import Team

log = logging.getLogger("forq")


def tune(
    model: LoadedModel | str | Path,
    task: str | Task,
    data: Data = "",
    *,
    recipe: str | None = None,
    steps: int | None = None,
    forwards: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    eval_every: int | None = None,
    reward: str | None = None,
    move: str | None = None,
    profile: str | Path | None = None,
    adapter: str | Path | None = None,
    tokens_per_probe: int | None = None,
    micro_batch_tokens: int | None = None,
    quantize_on_load: str | None = None,
    settings: Settings | Mapping[str, object] | None = None,
    watch: Mapping[str, str] | None = None,
    watch_limit: Mapping[str, float] | None = None,
    resume: bool = False,
    team: Team | None = None,
) -> Run:
    """Tune a quantized model with forward passes only, and save the best checkpoint.

    It writes the same files as ``forq tune``. To watch a run or to stop it by your own rule, loop
    over ``Run.begin(…).events()`` instead.

    Args:
        model: a model from :func:`forq.load`, or its folder or hub id. A run begins from the
            checkpoint: what earlier runs or optimizers moved in a loaded model is read from the file
            again, so one model serves a loop over seeds. A model with adapters is refused; load it
            again.
        task: a task's name, or an open task.
        data: a file or folder; rows as a list of mappings or a ``datasets.Dataset``; or a mapping
            from splits (``train``, ``validation``, ``test``) to such rows. Rows in memory are
            written into ``out/rows``. By default what has the task's name in ``$FORQ_DATA``. An open task
            has its own data, and its own reward, batch size and options.
        recipe: name of the method's recipe; ``forq ls recipes`` lists them. The default is
            ``qzo``; ``qzo-shared`` for encoders, images and diffusion; ``qzo-slopes`` with a reward, with
            a learning rate or a clip in ``settings``, or where codes or adapters move.
        steps: number of training steps; by default 2,000.
        forwards: budget of forward passes, the calibration included, in place of ``steps``.
        out: the run's folder, new or empty; by default a new temporary folder, whose path is
            logged.
        seed: seed of the noise and of the task's batches.
        eval_every: number of steps between two scores; by default a twentieth of the steps.
        reward: objective in place of the task's own; see :mod:`forq.tasks.objectives.rewards`.
        move: kinds of leaves that move, separated by commas (``"scales,norms"``); by default the
            recipe's.
        profile: file of factors for single coordinates; see :mod:`forq.coordinates.profile`.
        adapter: folder of a LoRA adapter in PEFT's format to go on from, with ``move="lora"``.
        tokens_per_probe: size of a batch in tokens, in place of a number of rows.
        micro_batch_tokens: most tokens in a forward pass. It bounds memory and changes only the
            last bits of losses.
        quantize_on_load: a format such as ``gptq4``: a float checkpoint is first quantized into
            ``out/base``, which is then tuned; see :mod:`forq.models.convert.onload`.
        settings: changes to the recipe and options of the task, such as
            ``{"rule": {"lr": 1e-3}, "task": {"max_length": 64}}``; or a whole
            :class:`~forq.recipes.settings.Settings` in place of the recipe's.
        watch: data sets to score beside the task, by name, each as ``"TASK:DATA"``
            (``{"plain": "text:book.txt"}``); see :mod:`forq.runs.watch`. Their options stand in
            ``settings``: ``{"watch": {"plain": {"rows": 16, "max_length": 64}}}``.
        watch_limit: the divergence from the base on a watched data set, in nats a token, beyond
            which the run ends and saves the best within it.
        resume: continue the run in ``out`` if there is one, else begin it. After an interruption,
            the same call ends in the same run.
        team: ranks of which this process is the chief; see
            :func:`forq.runs.ranks.tune.tune_on_ranks`, which calls this.

    Returns:
        The finished run: ``run.result``, ``run.best``, ``run.folder / "checkpoint"``,
            ``run.save(folder)``.

    Example:
        >>> run = forq.tune("opt-125m-gptq", "text", "notes.txt", steps=500)    # doctest: +SKIP

    Raises:
        ConfigError: a setting is invalid, an open task cannot follow it, or, with ``resume``, differs from the run's.
        DataError: the data cannot be used.
        JournalError: with ``resume``, base or data differ from the run's.
    """
    began = time.perf_counter()
    if resume and out is None:
        raise ConfigError("resume: expected out, the run's folder, found none")
    if not isinstance(task, str):
        options = settings.get("task") if isinstance(settings, Mapping) else None
        sizes = {"tokens_per_probe": tokens_per_probe, "micro_batch_tokens": micro_batch_tokens}
        _require_own({"data": None if data == "" else data, "reward": reward, "settings['task']": options, **sizes})
    folder = _folder(out)
    resumed = resume and holds_run(folder)
    if not resumed and not vacant(folder):
        refuse_taken(folder)
    if quantize_on_load is not None:
        if isinstance(model, LoadedModel):
            raise ConfigError(
                "quantize_on_load: expected the folder or hub id of a float checkpoint, found a loaded model"
            )
        model = quantized(model, quantize_on_load, folder / BASE, begun=resumed)
    loaded = model if isinstance(model, LoadedModel) else load(model)
    restore_base(loaded)  # before its kernels are noted and the task is opened, which may measure the model
    watched = {name: parts(text) for name, text in (watch or {}).items()}
    watched = {name: (kind, located(where or None, kind)) for name, (kind, where) in watched.items()}
    begun_watches = configs.read(folder / "config.toml").watch if resumed else None
    if resumed and recipe is None and move is None and settings is None:
        # What the caller leaves open is as it was when the run began, whatever a recipe has become since.
        begun = configs.read(folder / "config.toml")
        recipe, settings = begun.recipe, begun.method
    config = configs.complete(
        recipe,
        kind=loaded.kind,
        move=move,
        steps=steps,
        forwards=forwards,
        eval_every=eval_every,
        checkpoint=str(loaded.checkpoint.path),
        task=TaskConfig(
            name=task if isinstance(task, str) else str(task.describe()["task"]),
            data=path_of(data, task, folder, begun=resumed) if isinstance(task, str) else "",
            reward=reward,
            tokens_per_probe=tokens_per_probe,
            micro_batch_tokens=micro_batch_tokens,
        ),
        seed=seed,
        device=str(loaded.device),
        activations=activations(loaded),
        profile=None if profile is None else str(Path(profile).resolve()),
        adapter=None if adapter is None else str(Path(adapter).resolve()),
        settings=settings,
        watch=watch_settings(watched, watch_limit or {}, begun_watches),
    )
    header = journal.read(folder / "journal.jsonl").header if resumed else {}
    config = with_old_meanings(config, header)
    if resumed:
        config = with_fixed_options(config, configs.read(folder / "config.toml"))
    if team is not None:
        from forq.runs.ranks.session import agreed

        config = agreed(team, config, lambda run: run)
    opened = open_task(config.task, loaded, seed) if isinstance(task, str) else settled_task(task, loaded)
    if resumed:
        own = with_old_meanings(configs.read(folder / "config.toml"), header)
        require(folder, own, config, profile=None if profile is None else Path(profile))
        run = Run.resume(folder, moved_to(own, config), loaded, opened, team=team)
    else:
        if move is None and not (isinstance(settings, Settings) or "move" in (settings or {})):
            require_floats(config.recipe, config.method, summary(loaded.checkpoint))
        run = Run.begin(folder, config, loaded, opened, team=team)
    for _ in run.events():
        pass
    if team is not None:
        team.leave()  # what is left to do needs no other rank
    run.finish()
    run.result = conclude(outcome(run), run.config, opened, folder, began)
    return run


def _require_own(arguments: Mapping[str, object]) -> None:
    """Refuse what only a task that is still to be opened can follow."""
    if given := [name for name, value in arguments.items() if value is not None]:
        raise ConfigError(
            f"task: an open task has its own data and options, found {' and '.join(given)} beside it; open the task "
            "with them, or give its name"
        )


def _folder(out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    folder = Path(tempfile.mkdtemp(prefix="forq-"))
    log.warning("no out was given: the run is in %s", folder)
    return folder
