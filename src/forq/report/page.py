"""The HTML page: collects the values for the template from records and fills the template."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from forq.errors import ConfigError
from forq.report import curves, panels
from forq.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, brief
from forq.report.classes import matrices
from forq.report.curves import groups
from forq.report.layers import maps
from forq.report.record import Record, Sides, Stopped
from forq.report.words import counted
from forq.tasks import SHARES, Account, shown

GENERATOR = '<meta name="generator" content="forq report'
"""Marks a page as a report of forq; such a file may be overwritten."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric before and after.

    Attributes:
        change: the difference; in percentage points if the metric is a share.
        better: whether the metric improved; ``None`` if it did not change.
    """

    split: str
    name: str
    before: str
    after: str
    change: str
    better: bool | None


def page(records: Sequence[Record]) -> str:
    """One HTML page about one or several runs, without scripts and without requests."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    run_groups = groups(records)
    text: str = env.get_template("page.html").render(
        title=", ".join(group.label for group in run_groups),
        version=version("forq"),
        groups=run_groups,
        records=records,
        task=_task(records),
        warnings=warnings(records),
        results=[(group, measured(group.records)) for group in run_groups],
        confused=[(group, found) for group in run_groups if (found := matrices(group.records))],
        learning=panels.learning(run_groups),
        watching=panels.watching(run_groups),
        stepping=panels.stepping(run_groups),
        never=" and ".join(panels.never(run_groups)),
        maps=[(group, maps(group.records)) for group in run_groups],
        facts={record.name: facts(record) for record in records},
        calibrated={record.name: [(name, brief(x)) for name, x in record.calibration.items()] for record in records},
        commands={record.name: commands(record) for record in records},
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
    )
    return text


def write(records: Sequence[Record], path: Path, *, overwrite: bool = False) -> None:
    """Write the page. An earlier report is replaced, any other file only with ``overwrite``.

    Raises:
        ConfigError: another file is in the way, or the folder does not exist.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: expected a file, found a folder; name a file, as --out {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: expected a folder to write the report into, found none; make it first")
    if path.exists() and not overwrite and GENERATOR.encode() not in path.read_bytes()[:2000]:
        raise ConfigError(
            f"{path} exists already: expected a report of forq, found another file; choose another --out, or give "
            "--overwrite"
        )
    text = page(records)
    path.write_text(text, encoding="utf-8")


def summary(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The numbers of the page as plain values, one dictionary per run."""
    return [
        {
            "run": str(record.folder),
            "name": record.name,
            "group": group.label,
            "finished": record.finished,
            "method": dict(record.method),
            "found": dict(record.calibration),
            "steps": record.trained,
            "forwards": record.journal.forwards,
            "seconds": record.seconds,
            "best_step": None if record.best is None else record.best.trained,
            **{split: asdict(sides) for split, sides in _table(record).items()},
            "watch": {name: asdict(sides) for name, sides in _watched(record).items()},
            "stopped": asdict(record.result.stopped) if record.result and record.result.stopped else None,
            "data": Account.of(record.journal.header["task"]).plain(),
            "journal_bytes": record.journal.path.stat().st_size,
            "torn_bytes": record.journal.torn_bytes,
        }
        for group in groups(records)
        for record in group.records
    ]


def warnings(records: Sequence[Record]) -> list[str]:
    """Warnings that a reader must know before comparing runs."""
    sentences = []
    for record in records:
        if not record.finished:
            wanted = record.method["steps"]
            sentences.append(
                f"{record.name} is not finished: {record.trained:,} of {counted(wanted, 'step')} on record."
            )
        if record.journal.torn_bytes:
            sentences.append(
                f"{record.name}: an interruption cut the journal's last line ({record.journal.torn_bytes} bytes); "
                "the lines before it are complete, and --resume continues from there."
            )
        if len(record.steps) < record.trained:
            missing = record.trained - len(record.steps)
            sentences.append(
                f"{record.name}: {missing:,} of {counted(record.trained, 'step')} without a row in metrics.jsonl."
            )
        if not record.scores:
            sentences.append(f"{record.name} has no validation score yet.")
        account = Account.of(record.journal.header["task"])
        sentences += [f"{record.name}: {warning}." for warning in account.warnings]
    headers = [record.journal.header for record in records]
    for what, values in (
        ("tasks", {str(header["task"].get("task")) for header in headers}),
        ("base checkpoints", {str(header["base"]) for header in headers}),
    ):
        if len(values) > 1:
            sentences.append(f"These runs have different {what}, so their losses are not comparable.")
    return sentences


def measured(records: Sequence[Record]) -> list[Measured]:
    """Metrics before and after, on test, validation and watched data; for several runs mean ± standard deviation."""
    tables = [
        _table(record) | {f"watched {name}": sides for name, sides in _watched(record).items()} for record in records
    ]
    rows = []
    for split in ("test", "validation", *(name for name in tables[0] if name.startswith("watched "))):
        runs = [table[split] for table in tables if split in table]
        names = list(dict.fromkeys(name for sides in runs for name in sides.before if name in sides.after))
        for name in names if len(runs) == len(records) else []:
            if name == "rows" or not all(name in sides.before and name in sides.after for sides in runs):
                continue
            before = curves.mean_and_spread([sides.before[name] for sides in runs])
            after = curves.mean_and_spread([sides.after[name] for sides in runs])
            change = _difference(name, before[0], after[0])
            improved = (after[0] < before[0]) == name.startswith("loss")
            better = None if name == "kl" or change in ("no change", "not a number") else improved
            rows.append(Measured(split, name, _pm(name, *before), _pm(name, *after), change, better))
    return rows


def _best_step(trained: int, *, finished: bool) -> str:
    return "0: no step was better than the original" if finished and trained == 0 else f"{trained:,}"


def facts(record: Record) -> list[tuple[str, str]]:
    """The facts about a run as (name, value) pairs."""
    header, result = record.journal.header, record.result
    account = Account.of(header["task"])
    method, size = record.method, record.journal.path.stat().st_size
    scored = record.best
    values = {
        "status": "finished"
        if record.finished
        else f"not finished: {record.trained:,} of {counted(method['steps'], 'step')}",
        "recipe": method["recipe"],
        "seed": method["seed"],
        "moves": method["move"],
        "steps": f"{record.trained:,}",
        "best after step": None if scored is None else _best_step(scored.trained, finished=record.finished),
        "forward passes": f"{record.journal.forwards:,}",
        "training time": duration(record.seconds),
        "peak memory": f"{result.peak_mb:,} MB" if result and result.peak_mb else None,
        "coordinates": f"{record.journal.lines[-1].moved.total or _total(record):,}",
        "rounding to the file": f"{100 * result.rounding:.2g} % of the trained values"
        if result and result.rounding
        else None,
        "ended early": result
        and result.certificate
        and f"{result.certificate:.0f} audits in a row found no better step",
        "ended by its limit": result and result.stopped and _stopped(result.stopped),
        "floor of its grid": result and result.floor and f"reached: a step costs {-result.floor:.2g} on its own batch",
        "journal": f"{size / 1000:,.1f} kB, {len(record.journal.lines):,} lines, all seals valid",
        "checkpoint": header["names"]["checkpoint"],
        "data": f"{header['task'].get('task')}: {header['names']['data']}",
        "rows": account.line.removeprefix("rows: ") or None,
        "device": f"{header['device']}, {header['dtype']}, CPU threads: {header['threads']}",
        "kernel": ", ".join(kernel) if isinstance(kernel := header.get("kernel", "reference"), dict) else kernel,
        **({} if record.ranks is None else record.ranks.facts()),
        "same replay on every machine": "yes"
        if header["portable"]
        else "no: Gaussian noise depends on the maths library",
        "versions": ", ".join(f"{name} {number}" for name, number in header["versions"].items()),
        "base": header["base"][:16],
    }
    return [(name, str(value)) for name, value in values.items() if value is not None]


def commands(record: Record) -> list[tuple[str, str]]:
    """Useful commands for the run, each with its purpose."""
    folder, base = str(record.folder), str(record.config.get("checkpoint", "CHECKPOINT"))
    verify = ("check the journal and that it rebuilds the saved checkpoint", ["forq", "verify", folder, "--base", base])
    if not record.finished:
        resume = ("continue the run", ["forq", "tune", base, "--out", folder, "--resume"])
        return [(purpose, shlex.join(words)) for purpose, words in (resume, verify)]
    replay = (
        "rebuild the tuned checkpoint from the base, without a forward pass",
        ["forq", "replay", folder, "--base", base, "--out", f"{folder}-replayed"],
    )
    return [(purpose, shlex.join(words)) for purpose, words in (verify, replay)]


def duration(seconds: float) -> str:
    """A duration as text, in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _task(records: Iterable[Record]) -> str:
    """Tasks, data and base checkpoints in one line, each once."""
    headers = [record.journal.header for record in records]
    named = [(str(header["task"].get("task")), str(header["names"]["data"])) for header in headers]
    tasks = dict.fromkeys(task if task == data else f"{task} ({data})" for task, data in named)
    bases = dict.fromkeys(header["names"]["checkpoint"] for header in headers)
    return f"{', '.join(tasks)} on {', '.join(bases)}"


def _table(record: Record) -> dict[str, Sides]:
    """Metrics before and after, by split; for an unfinished run from its validation scores so far."""
    if record.result is not None:
        return {"validation": record.result.validation, "test": record.result.test}
    if record.best is None:
        return {}
    return {"validation": Sides(record.scores[0].score.numbers(), record.best.score.numbers())}


def _watched(record: Record) -> dict[str, Sides]:
    """Metrics of the watched data sets before and after, by name; so far, where the run is not finished."""
    if record.result is not None:
        return record.result.watch
    if record.best is None:
        return {}
    first, best = record.scores[0].watch, record.best.watch
    return {name: Sides(first[name].numbers(), best[name].numbers()) for name in first if name in best}


def _stopped(stopped: Stopped) -> str:
    return f"after step {stopped.step:,}: divergence {stopped.kl:.4f} on {stopped.watch}, limit {stopped.limit:g}"


def _pm(name: str, mean: float, spread: float | None) -> str:
    return shown(name, mean) if spread is None else f"{shown(name, mean)} ± {shown(name, spread)}"


def _difference(name: str, before: float, after: float) -> str:
    change = after - before
    if not math.isfinite(change):
        return "not a number"
    text, unit = (f"{100 * change:+.1f}", " points") if name in SHARES else (f"{change:+.4f}", "")
    return "no change" if float(text) == 0 else f"{text}{unit}".replace("-", "−")


def _total(record: Record) -> int:
    return max(line.moved.total for line in record.journal.lines)
