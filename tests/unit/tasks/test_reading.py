"""A head's rows are those of transformers to the last token, and a run from before that goes on with its own."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import transformers

import forq
from forq.runs import config as configs
from forq.runs import fixed_options, journal
from forq.runs.config import TaskConfig, complete
from forq.runs.older_runs import with_reading_law
from forq.runs.open_task import open_task
from forq.runs.own_rows import changed
from forq.runs.run import Run
from forq.tasks import classify, sst2
from forq.tasks.kinds.examples import Example
from forq.tasks.kinds.head import Headed
from forq.tasks.kinds.similarity import Bare
from tests import tiny_encoders, tiny_heads, tiny_lm

WORDS = ["film", "number", "says", "is", "good", "bad", "It", "was", "great", "terrible", "a", "movie"]
LENGTHS = (1, 2, 3, 5, 8, 9, 12)
ROOM = (8, 9, 12, 13, 16, 17, 21, 40)
OLD = {  # digests of the task by the forq before law 2
    "llama": "7403e82dd5a89f5e4fef9990b507ef5668a2b413ce4b27951f28398cdab213f3",
    "bert": "eb738ce4ef150cf590f1509fa690c60f16ad09ea6fd293bf4ff1c0b623f860f4",
}


def pairs(folder: Path) -> Path:
    """Pairs of all lengths, with white space around them."""
    path = folder / "pairs.jsonl"
    rows = (
        {
            "a": f" {' '.join(WORDS[: 1 + n % 12])} ",
            "b": f"{' '.join(WORDS[::-1][: 1 + n * 5 % 12])}\n",
            "label": ("GOOD", "BAD")[n % 2],
        }
        for n in range(60)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(path: Path, kind: str, **options: Any) -> Any:
    own = {"text": "a", "second": "b", "kind": "classifier", "head": ("BAD", "GOOD"), "max_length": 16, **options}
    return classify.open(path, tiny_heads.tokenizer(kind), seed=0, **own)


def tokenizer_of(name: str, side: str) -> Any:
    makers = {"bert": tiny_encoders.pairs, "encoder": tiny_encoders.tokenizer, "llama": tiny_lm.tokenizer}
    tokenizer: Any = copy.copy({**makers, "python": transformers.CanineTokenizer}[name]())
    tokenizer.truncation_side = side
    return tokenizer


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["bert", "encoder", "llama", "python"])
def test_a_pair_that_is_too_long_is_cut_as_the_tokenizer_cuts_it(name: str, side: str) -> None:
    tokenizer = tokenizer_of(name, side)
    assert getattr(tokenizer, "is_fast", None) is (name != "python")
    for most in ROOM:
        headed = Headed(tokenizer, ("A", "B"), most)
        for left in LENGTHS:
            for right in LENGTHS:
                texts = " ".join(WORDS[:left]), " ".join(WORDS[::-1][:right])
                theirs = tokenizer(*texts, truncation=True, max_length=most)["input_ids"]
                assert list(headed.row(Example("", "", 0, texts)).tokens) == theirs, (most, left, right)


@pytest.mark.parametrize("text", ["film is bad ", " film is bad", "film is bad\n", "film is bad"])
def test_a_head_reads_a_text_as_the_data_has_it(tmp_path: Path, text: str) -> None:
    rows = [{"text": text if n % 2 else f"good {n}", "label": ("GOOD", "BAD")[n % 2]} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = tiny_heads.tokenizer("llama")
    head: Any = {"kind": "classifier", "head": ("BAD", "GOOD")}
    task = classify.open(tmp_path / "rows.jsonl", tokenizer, seed=0, **head)
    row = next(row for row in task.rows["train"] if row.label == 0)
    assert list(row.tokens) == tokenizer(text)["input_ids"]
    before: Any = classify.open(tmp_path / "rows.jsonl", tokenizer, seed=0, reading=1, **head)
    row = next(row for row in before.rows["train"] if row.label == 0)
    assert list(row.tokens) == tokenizer(text.strip())["input_ids"]
    assert (task.digest == before.digest) == (text == text.strip())


@pytest.mark.parametrize("reading", [1, 2, 3])
def test_an_encoder_reads_a_text_as_the_data_has_it(tmp_path: Path, reading: Any) -> None:
    """As sentence-transformers does, which strips none."""
    rows = [{"text": "film is bad " if n % 2 else f"good {n} ", "label": ("GOOD", "BAD")[n % 2]} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = tiny_lm.tokenizer()  # white space is tokens to it
    task: Any = classify.open(tmp_path / "rows.jsonl", tokenizer, seed=0, kind="encoder", reading=reading)
    theirs = {tuple(tokenizer(row["text"] if reading > 1 else row["text"].strip())["input_ids"]) for row in rows}
    assert {row.tokens for row in task.rows["train"]} <= theirs and task.describe()["reading"] == reading


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["bert", "encoder", "llama", "python"])
def test_a_text_that_is_too_long_is_cut_on_the_side_of_the_tokenizer(name: str, side: str) -> None:
    tokenizer = tokenizer_of(name, side)
    text = " ".join(WORDS)
    theirs = tokenizer(text, truncation=True, max_length=9)["input_ids"]
    head, encoder = Headed(tokenizer, ("A", "B"), 9), Bare(tokenizer, ("film", "bad"), 0.05, 9)
    assert list(head.row(Example(text, "", 0)).tokens) == list(encoder.row(Example(text, "", 0)).tokens) == theirs
    lost = "beginning" if side == "left" else "end"
    assert (head.part, encoder.part) == (f"the {lost} of the longer text", f"the {lost} of the text")


@pytest.mark.parametrize("side", ["right", "left"])
def test_law_2_cuts_on_the_right_and_its_runs_go_on_so(side: str) -> None:
    tokenizer, text = tokenizer_of("bert", side), " ".join(WORDS)
    rows = [Headed(tokenizer_of("bert", "right"), ("A", "B"), 9).row(Example(text, "", 0))]
    rows += [Headed(tokenizer, ("A", "B"), 9, 2).row(Example(text, "", 0))]
    assert rows[0] == rows[1]
    assert with_reading_law({}, {"by": "head", "reading": 2}) == {"reading": 2} and with_reading_law(
        {}, {"by": "head"}
    ) == {"reading": 1}
    assert with_reading_law({}, {"by": "head", "reading": 3}) == with_reading_law({}, {"words": ["good", "bad"]}) == {}


def test_glue_rows_of_a_head_keep_their_space(tmp_path: Path) -> None:
    sst2.example(tmp_path)
    file = tmp_path / "train.tsv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *(f"{line} " for line in lines[1:]), ""]))
    tokenizer, head = tiny_heads.tokenizer("llama"), ("0", "1")
    options: Any = {"train_rows": 10, "validation_rows": 10, "kind": "classifier", "head": head}
    task: Any = sst2.open(tmp_path, tokenizer, seed=0, **options)
    theirs = {tuple(tokenizer(line.split("\t")[1] + " ")["input_ids"]) for line in lines[1:]}
    assert {row.tokens for row in task.rows["train"]} <= theirs


@pytest.mark.parametrize("kind", sorted(OLD))
def test_law_1_reads_as_before(tmp_path: Path, kind: str) -> None:
    path = pairs(tmp_path)
    assert made(path, kind, reading=1).digest == OLD[kind] != made(path, kind).digest
    assert made(path, kind).describe()["reading"] == 3


class Unaware:
    """A task as an older forq described it."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def describe(self) -> dict[str, Any]:
        return {name: value for name, value in self.task.describe().items() if name != "reading"}


def test_a_run_of_law_1_goes_on_and_is_scored_by_it(tmp_path: Path) -> None:
    folder = tiny_heads.folder(tmp_path / "float", "llama")
    forq.quantize(folder, tmp_path / "q", group_size=16)
    model = forq.load(tmp_path / "q", "cpu")
    options = {"text": "a", "second": "b", "max_length": 16, "batch_rows": 4, "validation_rows": 5, "test_rows": 5}
    task = TaskConfig(name="classify", data=str(pairs(tmp_path)), options=options)
    config = complete("qzo-shared", [], steps=4, eval_every=2, checkpoint=str(tmp_path / "q"), task=task, device="cpu")
    before = config.task.model_copy(update={"options": {**config.task.options, "reading": 1}})
    run = Run.begin(tmp_path / "run", config, model, Unaware(open_task(before, model, 0)))  # type: ignore[arg-type]
    events = run.events()
    while getattr(next(events), "kind", "") != "train":
        pass
    events.close()
    header = journal.read(run.journal).header["task"]
    assert "reading" not in header and header["digest"] != open_task(config.task, model, 0).describe()["digest"]
    assert "reading" not in configs.read(run.folder / "config.toml").task.options
    how: Any = {"recipe": "qzo-shared", "steps": 4, "eval_every": 2, "settings": {"task": options}}
    again = forq.tune(model, "classify", task.data, out=run.folder, resume=True, **how)
    assert len(journal.read(again.journal).lines) > 2
    old = fixed_options.source_run(str(run.folder))
    assert old is not None and old.task.options["reading"] == 1
    settings, _ = fixed_options.task_of_run(old, TaskConfig(name="classify", data=task.data))
    assert not changed(old, settings, open_task(settings, model, old.seed))
