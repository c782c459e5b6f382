"""Reports: one page and TensorBoard's files, from folders written here by hand; no model anywhere."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from forq.errors import ConfigError, JournalError
from forq.report import page, panels, tensorboard
from forq.report.charts import brief, chart
from forq.report.curves import POINTS, Curve, groups, metrics, scores, steps, window
from forq.report.layers import maps
from forq.report.record import read, read_all
from forq.runs.journal import Line, Writer
from forq.runs.metrics import Scored
from forq.scalars.losses import from_means
from forq.scalars.moves import Moved

PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
EVIL = "<script>alert('x')</script><img src=https://example.com/x.png>"


def made(
    folder, *, seed=0, count=40, wanted=None, lr=0.01, finished=True, sample="ONCE", task="sst2", moved=(90, 0, 100)
):
    """A run's folder: three calibrating forwards, then steps of two."""
    folder.mkdir(parents=True)
    wanted = wanted or count
    header = {
        "law": 1,
        "base": "b" * 64,
        "method": {"recipe": "qzo", "seed": seed, "steps": wanted, "move": "scales", "rule": {"lr": lr}},
        "task": {"task": task, "digest": f"of seed {seed}"},
        "portable": True,
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
        "kernel": "reference",
        "names": {"checkpoint": "tiny", "data": "reviews"},
        "versions": {"forq": "0.1.0"},
    }
    writer = Writer.create(folder / "journal.jsonl", header)
    writer.write(Line(0, "calibrate", from_means((1.0, 1.0, 1.0)), notes={"eps": 0.01, "lr": 0.03, "clip": 0.5}))
    rows = [_score(0, 0, 1.0 + seed / 10)]
    for trained in range(1, count + 1):
        forwards, loss = 3 + 2 * trained, 1.0 - trained / 100 + seed / 10
        writer.write(Line(trained, "train", from_means((loss, loss)), Moved(*moved)))
        notes = {"loss": loss, "slope": 0.4, "stride": 1e-3, "bad": 0.0} if trained > 1 else {"loss": None, "bad": 1.0}
        rows.append({**notes, "step": trained, "forwards": forwards, "seconds": trained * 0.5})
        if trained % max(1, wanted // 10) == 0 or trained == wanted:
            rows.append(_score(trained, forwards, loss))
    if finished:
        writer.write(Line(count + 1, "saved", (), notes={"trained": float(count)}, digest="d"))
        sides = {
            "before": {"rows": 8, "loss": 1.0, "accuracy": 0.5},
            "after": {"rows": 8, "loss": 0.6, "accuracy": 0.75},
        }
        result = {"validation": sides, "test": sides, "peak_mb": 500, "rounding": 2e-4}
        (folder / "result.json").write_text(json.dumps(result))
        names = [f"model.layers.{layer}.{part}.scales" for layer in range(3) for part in PARTS]
        moved = [_moved(name, "scales", 0.01 * (1 + index)) for index, name in enumerate(names)]
        moved += [_moved("model.embed_tokens.weight", "embeddings", 0.001)]
        (folder / "moved.json").write_text(json.dumps(moved))
        (folder / "samples.json").write_text(json.dumps({"before": sample, "after": f"{sample} UPON"}))
    writer.close()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = f'checkpoint = "ckpt/of mine"\neval_every = 4\nseed = {seed}\n[task]\nname = "{task}"\ndata = "reviews"\n'
    (folder / "config.toml").write_text(config)
    return folder


def _score(trained, forwards, loss):
    score = {"loss": loss, "rows": 8, "metrics": {"accuracy": min(1.0, 0.5 + trained / 100)}, "main": "loss"}
    return {"trained": trained, "forwards": forwards, "score": score, "best": True}


def _moved(name, group, share):
    return {
        "name": name,
        "group": group,
        "total": 10,
        "changed": 9,
        "norm": 2.0,
        "moved": 2.0 * share,
        "flipped": 0,
    }


class Page(HTMLParser):
    """A page as parsed: tags with attributes, headings, all text."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.headings, self.text, self._open = [], [], "", []
        self.feed(text)
        assert not self._open, "unclosed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self._open and self._open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_the_page_shows_scores_samples_and_commands(tmp_path):
    run = made(tmp_path / "one")
    text = page.page(read_all([run]))
    found = Page(text)
    assert found.headings[0] == "one"
    for heading in (
        "Before and after",
        "Learning",
        "The steps",
        "What moved where",
        "What the model writes",
        "The run",
    ):
        assert heading in found.headings
    for said in ("0.6000", "75.0%", "+25.0 points, better", "ONCE UPON", "none changed sign", "forq replay"):
        assert said in found.text, said
    assert "'ckpt/of mine'" in found.text  # a line to paste
    pictures = [attributes for tag, attributes in found.tags if tag == "svg"]
    assert len(pictures) >= 6 and all(one["role"] == "img" and one["aria-label"] for one in pictures)
    assert "from 1 to 0.6" in pictures[0]["aria-label"]


def test_the_page_makes_no_requests_and_has_no_scripts(tmp_path):
    found = Page(page.page(read_all([made(tmp_path / "one"), made(tmp_path / "two", lr=0.1)])))
    assert not [tag for tag, _ in found.tags if tag in ("script", "img", "iframe", "object", "form", "base")]
    links = [
        attributes[key] for _, attributes in found.tags for key in ("src", "href", "xlink:href") if key in attributes
    ]
    assert links == ["data:,"]
    assert not [key for _, attributes in found.tags for key in attributes if key.startswith("on")]
    policy = next(attributes for tag, attributes in found.tags if attributes.get("http-equiv"))
    assert policy["content"].startswith("default-src 'none'")
    style = (Path(page.__file__).parent / "page.css").read_text()
    assert "url(" not in style and "@import" not in style


def test_text_from_files_is_escaped(tmp_path):
    run = made(tmp_path / "a<b>&'\"", sample=EVIL, task="t</style><script>1</script>")
    text = page.page(read_all([run]))
    found = Page(text)
    assert "<script" not in text and not [tag for tag, _ in found.tags if tag in ("script", "img")]
    assert EVIL in found.text and "a<b>&'\"" in found.headings[0]


def test_seeds_of_one_method_are_a_mean_and_a_spread(tmp_path):
    runs = [made(tmp_path / f"x-{seed}", seed=seed) for seed in range(3)] + [made(tmp_path / "y", lr=0.1)]
    records = read_all(runs)
    found = groups(records)
    assert [group.label for group in found] == ["x (3 seeds)", "y"]
    curve = scores(found[0], "loss", "forwards")
    assert curve.points[0] == pytest.approx((0.0, 1.1))
    assert curve.high[0][1] - 1.1 == pytest.approx(0.1)  # of 1.0, 1.1, 1.2
    assert curve.low[-1] == pytest.approx((83.0, 0.7 - 0.1))
    assert scores(found[1], "loss", "seconds").low == ()
    found = Page(page.page(records))
    assert "x (3 seeds)" in found.text and "0.6000 ± 0.0000" in found.text


def test_a_shorter_run_of_the_method_is_compared_where_both_have_been(tmp_path):
    records = read_all(
        [made(tmp_path / "a", wanted=40), made(tmp_path / "b", seed=1, count=20, wanted=40, finished=False)]
    )
    (group,) = groups(records)
    assert scores(group, "loss", "forwards").points[-1][0] == 43.0
    assert any("b is not finished: 20 of 40 steps" in text for text in page.warnings(records))
    assert "forq tune 'ckpt/of mine' --out" in Page(page.page(records)).text


def test_a_run_of_2000_steps_is_a_small_page(tmp_path):
    runs = [made(tmp_path / "long", count=2000), made(tmp_path / "long2", count=2000, lr=1.0)]
    text = page.page(read_all(runs))
    assert len(text) < 200_000
    (group,) = groups([read(runs[0])])
    curve = steps(group, lambda step: step.line.notes["loss"])
    assert len(curve.points) == POINTS and window(2000) == 101
    assert curve.points[-1][1] == pytest.approx(1.0 - (2000 - 24.5) / 100)  # the mean of the last 50


def test_tasks_and_bases_that_differ_are_named(tmp_path):
    records = read_all([made(tmp_path / "a"), made(tmp_path / "b", task="text")])
    assert any("different tasks" in text for text in page.warnings(records))


def test_runs_with_equal_names_get_distinct_names(tmp_path):
    records = read_all([made(tmp_path / "p" / "run"), made(tmp_path / "q" / "run", lr=0.1)])
    assert [record.name for record in records] == ["p/run", "q/run"]
    with pytest.raises(ConfigError, match="given twice"):
        read_all([tmp_path / "p" / "run", tmp_path / "p" / ".." / "p" / "run"])


def test_a_torn_journal_is_shown_and_a_damaged_one_refused(tmp_path):
    run = made(tmp_path / "torn", count=20, wanted=40, finished=False)
    with (run / "journal.jsonl").open("a") as file:
        file.write('{"t":21,"k":"tr')
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"loss": 0.')
    record = read(run)
    assert record.trained == 20 and "cut the journal's last line (15 bytes)" in " ".join(page.warnings([record]))
    path = run / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"t":9', b'"t":8', 1))
    with pytest.raises(JournalError, match="line 11"):
        read(run)


def test_a_folder_without_a_run_or_without_steps_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a run's folder"):
        read(tmp_path)
    with pytest.raises(JournalError, match="no training step is on record yet"):
        read(made(tmp_path / "begun", count=0, wanted=40, finished=False))
    run = made(tmp_path / "bent")
    (run / "result.json").write_text('{"test": {"before": 3}}')
    with pytest.raises(ConfigError, match=r"result\.json: expected what a finished run writes"):
        read(run)


def test_a_run_without_its_metrics_is_shown_without_curves(tmp_path):
    run = made(tmp_path / "bare")
    (run / "metrics.jsonl").unlink()
    found = Page(page.page([read(run)]))
    assert "Learning" not in found.headings and "40 of 40 steps without a row" in found.text


def test_only_an_earlier_report_is_overwritten(tmp_path):
    records, out = read_all([made(tmp_path / "one")]), tmp_path / "page.html"
    page.write(records, out)
    page.write(records, out)
    out.write_text("a letter")
    with pytest.raises(ConfigError, match="expected a report of forq"):
        page.write(records, out)
    page.write(records, out, overwrite=True)
    assert page.GENERATOR in out.read_text()
    with pytest.raises(ConfigError, match="found a folder; name a file"):
        page.write(records, tmp_path)
    with pytest.raises(ConfigError, match="make it first"):
        page.write(records, tmp_path / "nowhere" / "page.html")


def test_maps_place_tensors_by_layer_and_part(tmp_path):
    scales, rest = maps([read(made(tmp_path / "one"))])
    assert scales.parts == ("q", "o", "gate", "down") and [layer for layer, _ in scales.rows] == ["0", "1", "2"]
    assert scales.rows[0][1][0].text == "1.0" and scales.rows[2][1][3].depth == 100
    assert (scales.highest, scales.flipped) == ("12 %", 0)
    assert [name for name, _ in rest.alone] == ["model.embed_tokens"]


def test_ticks_are_round_and_hold_the_curve():
    drawn = chart("y", [Curve("a", 0, ((0.0, 0.31), (900.0, 1.93)))], caption="")
    assert [tick.label for tick in drawn.y_ticks] == ["0.0", "0.5", "1.0", "1.5", "2.0"]
    assert [tick.label for tick in drawn.x_ticks] == ["0", "250", "500", "750"]
    logs = chart("y", [Curve("a", 0, ((0.0, 2e-7), (9.0, 0.0), (10.0, 3e-3)))], caption="", log=True)
    assert [tick.label for tick in logs.y_ticks] == ["1e-7", "1e-6", "1e-5", "1e-4", "0.001", "0.01"]
    flat = chart("y", [Curve("a", 0, ((0.0, 1.0), (1.0, 1.0)))], caption="", share=True)
    assert flat.y_ticks[-1].label == "100 %"
    assert chart("y", [None, Curve("a", 0, ())], caption="") is None
    assert [brief(x) for x in (0, 1500, 2.5e6, 3.1e-4, -0.25)] == ["0", "1.5k", "2.5M", "3.1e-4", "-0.25"]


def test_the_record_yields_what_the_run_did(tmp_path):
    record = read(made(tmp_path / "one", count=10))
    events = list(record.events())
    kinds = ["score" if isinstance(event, Scored) else event.kind for event in events]
    assert kinds == ["score", "calibrate"] + ["train", "score"] * 10
    assert metrics([record]) == ["loss", "accuracy"]
    assert math.isnan(events[2].notes["loss"]) and events[4].notes["loss"] == pytest.approx(0.98)


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_reads_every_step_once(tmp_path):
    pytest.importorskip("tensorboard")
    record = read(made(tmp_path / "one", count=10))
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "notes.txt").write_text("mine")
    for _ in range(2):  # the second time as a resumed run does it: from the beginning
        assert len(list(tensorboard.written(record.events(), tmp_path / "board"))) == 22
    found = scalars(tmp_path / "board")
    assert found["train/loss"][0] == (2, pytest.approx(0.98))  # the first was no number
    assert [step for step, _ in found["train/bad"]] == list(range(1, 11))
    assert found["forwards"][-1] == (10, 23.0) and found["train/changed"][0][1] == pytest.approx(0.9)
    assert found["validation/accuracy"][-1] == (10, pytest.approx(0.6))
    assert (tmp_path / "board" / "notes.txt").exists()


def test_without_tensorboard_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'forq\[tensorboard\]'"):
        tensorboard.require()


def test_on_a_phone_the_page_scrolls_only_vertically(tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed to lay the page out")
    names = ["a-rather-long-name-of-a-run-without-a-single-space-in-it", "b"]
    records = read_all([made(tmp_path / name, lr=lr, sample="x" * 200) for name, lr in zip(names, (1, 2), strict=True)])
    page.write(records, tmp_path / "page.html")
    measure = "const d = f.contentDocument; document.title = d.documentElement.scrollWidth + ' ' + d.body.scrollWidth"
    frame = f'<iframe id="f" src="page.html" width="375" height="800" style="border:0" onload="{measure}"></iframe>'
    (tmp_path / "phone.html").write_text(f"<!doctype html><title>none</title>{frame}")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--hide-scrollbars"]
    flags += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000"]
    words = [browser, *flags, "--dump-dom", (tmp_path / "phone.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert "<title>375 375</title>" in done.stdout, done.stdout[:300] + done.stderr[-500:]


@pytest.mark.parametrize("ending", ["scales", "weight.absmax", "weight.d", "weight_scale"])
def test_maps_name_parts_without_the_tensor_names_of_the_format(ending, tmp_path):
    run = made(tmp_path / "one")
    rows = [row for row in json.loads((run / "moved.json").read_text()) if row["group"] == "scales"]
    named = [{**row, "name": row["name"].removesuffix("scales") + ending} for row in rows]
    (run / "moved.json").write_text(json.dumps(named))
    (scales,) = maps([read(run)])
    assert scales.parts == ("q", "o", "gate", "down")


@pytest.mark.parametrize(
    ("moved", "drawn"),
    [
        ((90, 0, 100, 0), set()),
        ((90, 7, 100, 0), {"cut"}),
        ((90, 0, 100, 7), {"lost"}),
        ((80, 7, 100, 9), {"cut", "lost"}),
    ],
)
def test_cut_and_rounded_coordinates_are_drawn_if_there_are_any(moved, drawn, tmp_path):
    charts = {one.title: one for one in panels.stepping(groups([read(made(tmp_path / "one", moved=moved))]))}
    titles = {"cut": "Coordinates cut", "lost": "Coordinates rounded away"}
    assert {name for name, title in titles.items() if title in charts} == drawn
    counts = dict(zip(("changed", "cut", "total", "lost"), moved, strict=True))
    for name in drawn:
        assert f"{counts[name]} %" in charts[titles[name]].description, charts[titles[name]].description
