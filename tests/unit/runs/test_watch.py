"""Watched data sets: measured beside the task, kept by a resumed run, and a limit that ends a run in good order."""

from __future__ import annotations

import shutil

import pytest

import forq
from forq.errors import ConfigError, JournalError
from forq.models.load import load
from forq.report.page import page, summary
from forq.report.record import read
from forq.runs import config as configs
from forq.runs import journal
from forq.runs.open_task import open_task
from forq.runs.run import Run

SETTINGS = {"task": {"max_length": 32, "validation_rows": 8, "test_rows": 8, "batch_rows": 4}}
OPTIONS = {"watch": {"plain": {"rows": 4, "max_length": 24}}}
RUN = {"steps": 6, "eval_every": 2}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "plain.txt"
    path.write_text("".join(f"line {n} is good and number {n * n % 97} .\n" for n in range(1500)))
    return path


@pytest.fixture(scope="module")
def watched(base, text, plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("watched") / "run"
    watch = {"plain": f"text:{plain}"}
    return forq.tune(str(base), "text", text, out=out, watch=watch, settings={**SETTINGS, **OPTIONS}, **RUN)


def test_the_divergence_begins_at_nothing_and_rises(watched):
    sides = watched.result["watch"]["plain"]
    assert sides["before"]["kl"] == 0.0
    assert sides["last"]["kl"] > 0
    assert sides["before"]["rows"] == 4
    assert watched.result["stopped"] is None


def test_the_loss_is_that_of_the_saved_file(watched, base):
    config = configs.read(watched.folder / "config.toml")
    assert config.watch["plain"].options == {"max_length": 24}
    saved = load(str(watched.checkpoint))
    task = open_task(config.watch["plain"].as_task(), saved, config.seed)
    after = watched.result["watch"]["plain"]["after"]["loss"]
    assert task.evaluate(saved, "validation", 4).loss == pytest.approx(after, rel=1e-6)


def test_a_watch_decides_nothing(watched, base, text, tmp_path):
    alone = forq.tune(str(base), "text", text, out=tmp_path / "run", settings=SETTINGS, **RUN)
    lines = [journal.read(run.folder / "journal.jsonl").lines for run in (watched, alone)]
    assert lines[0] == lines[1]
    assert "watch" not in journal.read(alone.folder / "journal.jsonl").header
    assert "watch" not in (alone.folder / "config.toml").read_text()
    assert forq.verify(watched.folder, base).checkpoint is True


def test_a_resumed_run_keeps_what_it_watches(watched, base, text, plain, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(watched.folder, folder)
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    (folder / "state" / "last.safetensors").unlink()
    again = forq.tune(str(base), "text", text, out=folder, resume=True, **RUN, settings=SETTINGS)
    assert again.result["watch"] == watched.result["watch"]
    other = tmp_path / "other.txt"
    other.write_text(plain.read_text().upper())
    watch = {"plain": f"text:{other}"}
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    with pytest.raises(JournalError, match="watch"):
        forq.tune(str(base), "text", text, out=folder, resume=True, watch=watch, **RUN, settings=SETTINGS)


def test_a_limit_ends_a_run_in_good_order(watched, base, text, plain, tmp_path):
    seen = [scored.watch["plain"].kl for scored in read(watched.folder).scores]
    limit = (seen[1] + seen[2]) / 2 if seen[2] > seen[1] else seen[1] / 2
    crossed = next(place for place, kl in enumerate(seen) if kl > limit)
    run = forq.tune(
        str(base),
        "text",
        text,
        out=tmp_path / "run",
        watch={"plain": f"text:{plain}"},
        watch_limit={"plain": limit},
        settings={**SETTINGS, **OPTIONS},
        **RUN,
    )
    stopped = run.result["stopped"]
    assert stopped == {"watch": "plain", "kl": seen[crossed], "limit": limit, "step": 2 * crossed}
    assert run.best.trained < 2 * crossed and not run.trainer.last.best
    assert run.result["watch"]["plain"]["after"]["kl"] <= limit
    assert forq.verify(run.folder, base).checkpoint is True
    record = read(run.folder)
    assert summary([record])[0]["stopped"]["watch"] == "plain"
    shown = page([record])
    assert "Watched plain: divergence" in shown and "ended by its limit" in shown
    resumed = Run.resume(run.folder, run.config, forq.load(base), run.task)
    assert list(resumed.events())[-1] == run.trainer.over


def test_bad_watches_are_refused(base, text, plain, tmp_path):
    def tune(**given):
        return forq.tune(str(base), "text", text, out=tmp_path / "run", settings=SETTINGS, **RUN, **given)

    with pytest.raises(ConfigError, match="there is none"):
        tune(watch_limit={"plain": 0.1})
    with pytest.raises(ConfigError, match="above 0"):
        tune(watch={"plain": f"text:{plain}"}, watch_limit={"plain": -1.0})
    with pytest.raises(ConfigError, match="a name of letters"):
        tune(watch={"a.b": f"text:{plain}"})
    with pytest.raises(ConfigError, match="nonsense"):
        tune(watch={"plain": f"nonsense:{plain}"})
    assert not (tmp_path / "run").exists()
