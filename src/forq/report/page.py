"""The page: what a template needs, gathered from records, and the template filled with it."""

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
from forq.report.curves import groups
from forq.report.layers import maps
from forq.report.record import Record, Sides
from forq.tasks import SHARES, Account, shown

GENERATOR = '<meta name="generator" content="forq report'
"""By this a page is known for one of ours, which may be written again."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A number before and after.

    Attributes:
        change: the difference, shares in percentage points.
        better: whether it went the way it should; ``None`` where it did not move.
    """

    split: str
    name: str
    before: str
    after: str
    change: str
    better: bool | None


def page(records: Sequence[Record]) -> str:
    """One HTML page about one or several runs: no script, no request, nothing but what the folders say."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = groups(records)
    text: str = env.get_template("page.html").render(
        title=", ".join(group.label for group in found),
        version=version("forq"),
        groups=found,
        records=records,
        task=_task(records),
        warnings=warnings(records),
        results=[(group, measured(group.records)) for group in found],
        learning=panels.learning(found),
        stepping=panels.stepping(found),
        never=" and ".join(panels.never(found)),
        maps=[(group, maps(group.records)) for group in found],
        facts={record.name: facts(record) for record in records},
        calibrated={record.name: [(name, brief(x)) for name, x in record.found.items()] for record in records},
        commands={record.name: commands(record) for record in records},
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
    )
    return text


def write(records: Sequence[Record], path: Path, *, overwrite: bool = False) -> None:
    """Write the page; an earlier report is written anew, any other file only if told so.

    Raises:
        ConfigError: something else is in the way, or the folder is not there.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a file, as --out {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: expected a folder to write the report into, found none; make it first")
    if path.exists() and not overwrite and GENERATOR.encode() not in path.read_bytes()[:2000]:
        raise ConfigError(f"{path} is in the way and is no report of forq: choose another --out, or give --overwrite")
    text = page(records)
    path.write_text(text, encoding="utf-8")


def summary(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What the page says in numbers, run by run, as plain values."""
    return [
        {
            "run": str(record.folder),
            "name": record.name,
            "group": group.label,
            "finished": record.finished,
            "method": dict(record.method),
            "found": dict(record.found),
            "steps": record.trained,
            "forwards": record.journal.forwards,
            "seconds": record.seconds,
            "best_step": None if record.best is None else record.best.trained,
            **{split: asdict(both) for split, both in _table(record).items()},
            "data": Account.of(record.journal.header["task"]).plain(),
            "journal_bytes": record.journal.path.stat().st_size,
            "torn_bytes": record.journal.torn_bytes,
        }
        for group in groups(records)
        for record in group.records
    ]


def warnings(records: Sequence[Record]) -> list[str]:
    """What a reader must know before comparing anything."""
    said = []
    for record in records:
        if not record.finished:
            wanted = record.method["steps"]
            said.append(f"{record.name} is not finished: {record.trained:,} of {wanted:,} steps are on record.")
        if record.journal.torn_bytes:
            said.append(
                f"{record.name}: a kill cut the journal's last line ({record.journal.torn_bytes} bytes); "
                "the lines before it are whole, and --resume goes on from there."
            )
        if len(record.steps) < record.trained:
            missing = record.trained - len(record.steps)
            said.append(f"{record.name}: {missing:,} of {record.trained:,} steps have no row in metrics.jsonl.")
        if not record.scores:
            said.append(f"{record.name}: no score is on record.")
        said += [f"{record.name}: {sentence}." for sentence in Account.of(record.journal.header["task"]).warnings]
    headers = [record.journal.header for record in records]
    for what, values in (
        ("tasks", {str(header["task"].get("task")) for header in headers}),
        ("base checkpoints", {str(header["base"]) for header in headers}),
    ):
        if len(values) > 1:
            said.append(f"These runs have different {what}: their losses share an axis but do not compare.")
    return said


def measured(records: Sequence[Record]) -> list[Measured]:
    """Before and after on validation and test: of one run, or mean ± standard deviation over several."""
    tables = [_table(record) for record in records]
    rows = []
    for split in ("test", "validation"):
        both = [table[split] for table in tables if split in table]
        names = list(dict.fromkeys(name for pair in both for name in pair.before if name in pair.after))
        for name in names if len(both) == len(records) else []:
            if name == "rows" or not all(name in pair.before and name in pair.after for pair in both):
                continue
            first = curves.mean_and_spread([pair.before[name] for pair in both])
            last = curves.mean_and_spread([pair.after[name] for pair in both])
            change = _difference(name, first[0], last[0])
            rows.append(
                Measured(
                    split,
                    name,
                    _pm(name, *first),
                    _pm(name, *last),
                    change,
                    None
                    if change in ("no change", "not a number")
                    else (last[0] < first[0]) == name.startswith("loss"),
                )
            )
    return rows


def _best_step(trained: int, *, finished: bool) -> str:
    return "0: nothing better than the original was found" if finished and trained == 0 else f"{trained:,}"


def facts(record: Record) -> list[tuple[str, str]]:
    """What a run is and what it took, name by name."""
    header, result = record.journal.header, record.result
    account = Account.of(header["task"])
    method, size = record.method, record.journal.path.stat().st_size
    scored = record.best
    said = {
        "status": "finished" if record.finished else f"not finished: {record.trained:,} of {method['steps']:,} steps",
        "recipe": method["recipe"],
        "seed": method["seed"],
        "moves": method["move"],
        "steps": f"{record.trained:,}",
        "best after step": None if scored is None else _best_step(scored.trained, finished=record.finished),
        "forward passes": f"{record.journal.forwards:,}",
        "training time": duration(record.seconds),
        "peak memory": f"{result.peak_mb:,} MB" if result and result.peak_mb else None,
        "coordinates": f"{record.journal.lines[-1].moved.total or _total(record):,}",
        "rounding to the file": f"{result.rounding:.1e} of what moves" if result and result.rounding else None,
        "ended early": result
        and result.certificate
        and f"{result.certificate:.0f} audits in a row found no better step",
        "floor of its grid": result and result.floor and f"reached: a step loses {-result.floor:.2g} on its own batch",
        "journal": f"{size / 1000:,.1f} kB, {len(record.journal.lines):,} lines, seals whole",
        "checkpoint": header["names"]["checkpoint"],
        "data": f"{header['task'].get('task')}: {header['names']['data']}",
        "rows": account.line.removeprefix("rows: ") or None,
        "device": f"{header['device']}, {header['dtype']}, CPU threads: {header['threads']}",
        "kernel": ", ".join(kernel) if isinstance(kernel := header.get("kernel", "reference"), dict) else kernel,
        "replays alike everywhere": "yes" if header["portable"] else "no: Gaussian noise depends on the maths library",
        "versions": ", ".join(f"{name} {number}" for name, number in header["versions"].items()),
        "base": header["base"][:16],
    }
    return [(name, str(value)) for name, value in said.items() if value is not None]


def commands(record: Record) -> list[tuple[str, str]]:
    """What to do with the run next, and the line that does it."""
    folder, base = str(record.folder), str(record.config.get("checkpoint", "CHECKPOINT"))
    verify = ("check the journal, and that it rebuilds what was saved", ["forq", "verify", folder, "--base", base])
    if not record.finished:
        resume = ("go on with it", ["forq", "tune", base, "--out", folder, "--resume"])
        return [(what, shlex.join(words)) for what, words in (resume, verify)]
    replay = (
        "rebuild the tuned checkpoint from the base, without a forward pass",
        ["forq", "replay", folder, "--base", base, "--out", f"{folder}-replayed"],
    )
    return [(what, shlex.join(words)) for what, words in (verify, replay)]


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _task(records: Iterable[Record]) -> str:
    """Task, data and base checkpoint in a line, each once."""
    headers = [record.journal.header for record in records]
    named = [(str(header["task"].get("task")), str(header["names"]["data"])) for header in headers]
    tasks = dict.fromkeys(task if task == data else f"{task} ({data})" for task, data in named)
    bases = dict.fromkeys(header["names"]["checkpoint"] for header in headers)
    return f"{', '.join(tasks)} on {', '.join(bases)}"


def _table(record: Record) -> dict[str, Sides]:
    """Before and after by split: of result.json, or of an unfinished run from its scores so far."""
    if record.result is not None:
        return {"validation": record.result.validation, "test": record.result.test}
    if record.best is None:
        return {}
    return {"validation": Sides(record.scores[0].score.numbers(), record.best.score.numbers())}


def _pm(name: str, mean: float, spread: float | None) -> str:
    return shown(name, mean) if spread is None else f"{shown(name, mean)} ± {shown(name, spread)}"


def _difference(name: str, before: float, after: float) -> str:
    off = after - before
    if not math.isfinite(off):
        return "not a number"
    text, unit = (f"{100 * off:+.1f}", " points") if name in SHARES else (f"{off:+.4f}", "")
    return "no change" if float(text) == 0 else f"{text}{unit}".replace("-", "−")


def _total(record: Record) -> int:
    return max(line.moved.total for line in record.journal.lines)
