"""A tuning run on the screen: progress while it runs, before and after when it is done."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from forq.cli import _screen, _watch
from forq.cli._setbacks import Setbacks

if TYPE_CHECKING:
    from forq.runs.config import RunConfig
    from forq.runs.journal import Line
    from forq.runs.metrics import Scored
    from forq.runs.outcome import Numbers, Result
    from forq.runs.ranks.team import Team
    from forq.runs.run import Run
    from forq.tasks import Score


def tune(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    as_json: bool = False,
    chosen: bool = True,
    team: Team | None = None,
) -> Result:
    """Begin or resume a run, show it, save it, score the saved file against the base; the result, also as JSON.

    Args:
        chosen: the user says what moves; otherwise a recipe that would move next to nothing is refused.
        team: ranks that tune together, of which this process is the chief.
    """
    import torch

    from forq.cli import _ranks
    from forq.inspection.coverage import moves, require_floats
    from forq.inspection.memory import summary
    from forq.models.blocks import ALL
    from forq.models.load import load
    from forq.report import tensorboard as board
    from forq.runs.open_task import open_task
    from forq.runs.outcome import conclude, outcome
    from forq.runs.run import Run

    if tensorboard:
        board.require()
    if team is None:  # ranks have as many as each machine gives them
        torch.set_num_threads(config.threads)
    began = time.perf_counter()
    try:
        with _screen.err.status("loading"):
            model = load(config.checkpoint, config.device, kernel=config.kernel, activations=config.activations)
            held = summary(model.checkpoint)
            if not (resume or chosen):
                require_floats(config.recipe, config.method, held)
            task = open_task(config.task, model, config.seed)
            begin = Run.resume if resume else Run.begin
            run = begin(out, config, model, task, team=team)
        _screen.print_notes(model)
        _screen.print_rows(task, model.checkpoint, config.task)
        _screen.err.print(moves(run.space.counts, held), highlight=False, soft_wrap=True)
        if (blocks := run.config.method.blocks) != ALL:
            _screen.err.print(_blocks(run, blocks), highlight=False, soft_wrap=True)
        _watch.introduce(run)
        if run.config.method.by_layer or run.trainer.why_shared is not None:
            _screen.err.print(_directions(run), highlight=False, soft_wrap=True)
        lengths = watch(run, board.written(run.events(), out / "tensorboard") if tensorboard else run.events())
        if team is not None:
            _ranks.show_shares(team)
            team.leave()  # what is left to do needs no other rank
        with _screen.err.status("saving, and scoring what was saved"):
            run.finish()
            saved = outcome(run)
            del run, model  # before others are loaded
            result = conclude(saved, config, task, out, began)
        if lengths:
            _screen.err.print(_why(lengths), highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        _say_how_to_go_on(config, out, tensorboard=tensorboard, ranks=team is not None)
        raise
    show(result, config, as_json=as_json)
    return result


def _blocks(run: Run, blocks: str) -> str:
    """Which blocks move."""
    from forq.models.blocks import MIDDLE, block_of

    numbers = sorted({block for leaf in run.space.leaves if (block := block_of(leaf.name)) is not None})
    why = "; --blocks all moves the whole model" if blocks == MIDDLE else ""
    last = blocks.rpartition("-")[2]
    # A note and no refusal: a run that was begun so resumes.
    if last.isdecimal() and int(last) > numbers[-1]:
        why = f"; --blocks {blocks} goes further, but no block beyond {numbers[-1]} has anything to move"
    return f"blocks: {numbers[0]} to {numbers[-1]} move, all else stands still{why}"


def _directions(run: Run) -> str:
    """Which directions a step of the run has, and why."""
    from forq.runs.settled import CLASSES
    from forq.scalars.estimators.by_row import SHARED

    method = run.config.method
    whole = "; half of them multiply whole layers" if method.estimator.noise == CLASSES else ""
    if (why := run.trainer.why_shared) is not None:
        return f"directions: shared by all rows, because {why}{whole}"
    if not method.by_row:
        return f"directions: shared by all rows{whole}"
    if method.shared_form is None:
        return "directions: each row has its own"
    all_of_them = method.estimator.directions
    shared = min(SHARED, max(all_of_them - 1, 1))
    return f"directions: {shared} shared by all rows, {all_of_them - shared} in which each row has its own"


def show(result: Result, config: RunConfig, *, as_json: bool) -> None:
    """The result of a finished run on stdout."""
    from forq.report.words import counted

    if as_json:
        _screen.data(result)
        return
    _screen.table(
        f"{config.recipe}: {counted(config.steps, 'step')}, "
        f"{counted(result['forwards'], 'forward pass', 'forward passes')}; "
        f"saved: step {result['step']}, the best on validation",
        ["", "before", "after", "last step"],
        [
            *_rows("validation", result["validation"]),
            *_rows("test (the saved file)", result["test"]),
            *(row for name, sides in result.get("watch", {}).items() for row in _rows(f"watched {name}", sides)),
        ],
    )
    for sentence in _sentences(result):
        _screen.out.print(sentence, highlight=False, soft_wrap=True)
    for name, path in (
        ("checkpoint", result["checkpoint"]),
        ("adapter", result["adapter"]),
        ("journal", result["journal"]),
    ):
        if path is not None:
            _screen.out.print(f"{name:<11} {path}", highlight=False, soft_wrap=True)


def _sentences(result: Result) -> list[str]:
    """What the numbers of a result mean."""
    rounding = 100 * (result["rounding"] or 0.0)
    sentences = []
    if not result.get("improved", True):
        sentences.append(_nothing_better(result))
    elif rounding > 0:  # adapters are saved in float32, and integers exactly
        sentences.append(f"Rounding to the file's dtype changed the trained values by {rounding:.2g} %.")
    if (served := result.get("served")) is not None:
        trained = result["validation"]["after"]["loss"]
        sentences.append(
            f"validation loss of the saved file in a plain session {served['loss']:.6f}, in the session that trained "
            f"{trained:.6f}: a difference of {abs(served['loss'] - trained):.1g}"
        )
    if result.get("worse", False):
        sentences.append(
            "at the last step validation was clearly worse than before the first: shorten the steps (--set rule.lr=…; "
            "of qzo rule.newton=… and rule.noise=…) or give each more rows (--set task.batch_rows=…)"
        )
    if (ended := _watch.sentence(result)) is not None:
        sentences.append(ended)
    if result["certificate"] is not None:
        sentences.append(f"ended after {result['certificate']:.0f} audits in a row that found no better neighbour")
    if result["floor"] is not None:
        sentences.append(
            "at the floor of its grid: of the last audits the better side was worse than staying, by "
            f"{-result['floor']:.2g} on average; with probes of this size the grid resolves no more; take a finer one "
            "(--bits), fewer coordinates a step (estimator.noise), or let the scales move"
        )
    return sentences


def _nothing_better(result: Result) -> str:
    """Why the original is saved: the number that decides, on how many rows, and what the loss did meanwhile."""
    from forq.report.words import counted

    before, last = (result["validation"][when] for when in ("before", "last"))
    main = result.get("main")  # results of an older forq do not say it
    about = counted(int(before["rows"]), "row")
    if main not in (None, "loss"):
        way = "fell" if last["loss"] < before["loss"] else "rose"
        about += f"; the loss {way} from {before['loss']:.4g} to {last['loss']:.4g}"
    within = " within the limit of the watched data" if result.get("stopped") else ""
    return f"no step{within} had a better validation {main or 'score'} ({about}); what is saved is the original"


def _say_how_to_go_on(config: RunConfig, out: Path, *, tensorboard: bool, ranks: bool) -> None:
    """After Ctrl-C: whether something was begun, and the command that goes on with it."""
    from forq.runs.agreement import holds_run

    if not holds_run(out):
        _screen.err.print("stopped before the run began; the same command begins it", highlight=False)
        return
    if ranks:
        _screen.err.print("stopped; nothing is lost. Go on with the same command and --resume", highlight=False)
        return
    again = shlex.join(["forq", "tune", config.checkpoint, "--out", str(out), "--resume"])
    _screen.err.print(
        f"stopped; nothing is lost. Go on with: {again}" + (" --tensorboard" if tensorboard else ""),
        highlight=False,
        soft_wrap=True,
    )


def watch(run: Run, events: Iterable[Line | Scored]) -> list[tuple[float, bool]]:
    """Drain a run's events into a progress bar on stderr.

    Returns:
        Of every step ``newton`` its length, and whether held-out rows confirmed it.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from forq.runs.metrics import Scored

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[says]}"),
    )
    with Progress(*columns, console=_screen.err, transient=False) as bar:
        shown = bar.add_task("calibrating", total=run.config.steps, says="")
        lengths: list[tuple[float, bool]] = []
        loss, scored, trained, rule = "", "", 0, run.config.method.rule
        setbacks = Setbacks({} if rule.lr == "auto" else {"lr": rule.lr})
        if rule.step == "newton":
            setbacks.rates = {"newton": rule.newton}
        for event in events:
            if isinstance(event, Scored):
                best = run.best
                scored = f"validation {_main(event.score)}" + (f", best {_main(best.score)}" if best else "")
                scored = ", ".join(part for part in (scored, _watch.latest(event)) if part)
                for sentence in setbacks.sentences(event):
                    _screen.err.print(sentence, highlight=False, soft_wrap=True)
            elif event.kind == "train":
                trained += 1
                loss = f"loss {event.notes['loss']:.3f}"
                if "sure" in event.notes:
                    lengths.append((event.notes["length"], bool(event.notes["sure"])))
            elif rule.lr == "auto" and rule.step != "newton":
                setbacks.rates = {name: value for name, value in event.notes.items() if name.endswith("lr")}
            bar.update(
                shown,
                completed=trained,
                description="tuning" if trained else "calibrating",
                says=", ".join(part for part in (loss, scored) if part),
            )
    return lengths


def _why(lengths: list[tuple[float, bool]]) -> str:
    """What decided how long the steps of a run were."""
    from forq.report.words import counted

    mean = sum(length for length, _ in lengths) / len(lengths)
    sure = sum(confirmed for _, confirmed in lengths)
    confirmed = f"Held-out rows confirmed {sure:,} of {counted(len(lengths), 'step')}"
    if 2 * sure >= len(lengths):
        return f"{confirmed}; steps took {mean:.2g} of the length that their batches asked for, on average."
    return (
        f"{confirmed}; unconfirmed steps are kept short (rule.noise). Use more rows per batch "
        "(--set task.batch_rows=…)."
    )


def _main(score: Score) -> str:
    return _screen.number(score.main, score.value)


def _rows(name: str, sides: dict[str, Numbers]) -> list[list[str]]:
    """A row for each number: before, after, and at the last step where that was scored."""
    times = [sides.get(when, {}) for when in ("before", "after", "last")]
    return [
        [f"{name}, {key}", *(_screen.number(key, numbers[key]) if key in numbers else "" for numbers in times)]
        for key in times[0]
        if key != "rows"
    ]
