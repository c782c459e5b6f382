"""Labels of one's own: found or given, templates, stratified splits, the words' prior, scores and refusals."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import forq
from forq.errors import ConfigError, DataError
from forq.runs.config import TaskConfig
from forq.runs.config import read as read_config
from forq.runs.open_task import open_task
from forq.runs.predict import opened, predict, rows_of
from forq.tasks import account, classify
from forq.tasks.kinds.asking import Asking
from forq.tasks.kinds.labels import Labels, label_of, looks_missing
from forq.tasks.objectives.losses import log_likelihoods
from forq.tasks.rows.classed import confusion, macro_f1
from forq.tasks.rows.record import Record, Table
from forq.tasks.rows.rows import Marks
from forq.tasks.rows.stratified import stratified
from tests import tiny_encoders, tiny_lm

TOKENIZER = tiny_lm.tokenizer()
COLOURS = ("red", "green", "blue")


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def colours(count: int = 60) -> list[dict[str, Any]]:
    return [{"text": f"number {n} is it", "label": COLOURS[n % 3]} for n in range(count)]


def made(path: Path, **options: Any) -> Any:
    return classify.open(path, TOKENIZER, seed=3, **options)


def test_labels_are_found_in_the_data_and_are_their_own_words(tmp_path: Path) -> None:
    task = made(written(tmp_path, colours()))
    assert task.names == ("blue", "green", "red") and task.words == (" blue", " green", " red")
    row = task.rows["test"][0]
    assert TOKENIZER.decode(row.prompt).endswith("it\nLabel:") and TOKENIZER.decode(row.options[1]) == " green"
    line = account(task).line
    assert "classes: blue 16, green 16, red 16; batches with as many rows of each class" in line


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([2, 10, 1], ("1", "2", "10")),
        (["10", "9"], ("9", "10")),
        ([True, False], ("false", "true")),
        (["b", " a "], ("a", "b")),
        (["--5", "-5", "9" * 40], ("-5", "--5", "9" * 40)),
        (["10.0", "2.0", "-1", "1"], ("-1", "1", "2.0", "10.0")),
        (["9" * 40, "8", "+7.5", "-1e2"], ("-1e2", "+7.5", "8", "9" * 40)),
        (["10.5", "9.5", "b"], ("10.5", "9.5", "b")),
        (["one_two", "x"], ("one_two", "x")),
    ],
)
def test_labels_have_an_order_of_their_own(tmp_path: Path, values: list[Any], names: tuple[str, ...]) -> None:
    rows = [{"text": f"t {n}", "label": values[n % len(values)]} for n in range(60)]
    task = made(written(tmp_path, rows))
    assert task.names == names and (task.words[0] == " one two") is (names[0] == "one_two")


@pytest.mark.parametrize("values", [("1", "1.0"), ("01", "1"), ("1e1", "10"), ("-0", "0"), ("1", "01", "b")])
def test_a_number_in_two_spellings_is_refused_unless_a_file_lists_both(tmp_path: Path, values: tuple[str, ...]) -> None:
    rows = written(tmp_path, [{"text": f"t {n}", "label": values[n % len(values)]} for n in range(60)])
    with pytest.raises(DataError, match=r"expected a single spelling of each number, found .*task\.labels=FILE"):
        made(rows)
    file = written(tmp_path, [{"label": value} for value in values], "labels.jsonl")
    assert made(rows, labels=str(file)).names == values


def test_numbers_of_a_data_set_have_the_names_it_gives(tmp_path: Path) -> None:
    record = Record({"label": 1}, "row 1")
    assert label_of(record, "label", ("no", "yes")) == "yes" and label_of(record, "label") == "1"
    with pytest.raises(DataError, match=r"row 1: expected a label 0 … 1, found -1"):
        label_of(Record({"label": -1}, "row 1"), "label", ("no", "yes"))
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = [{"text": f"t {n}", "label": n % 2} for n in range(40)]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "set")
    assert made(tmp_path / "set").names == ("no", "yes")


def test_every_split_has_label_names_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"train": ("bad", "good", "mixed"), "test": ("good", "mixed")}
    rows = {split: [Record({"text": f"t {n}", "label": n % len(names)}, f"{split} {n}") for n in range(30)]
            for split, names in known.items()}  # fmt: skip
    table = Table(rows, "a digest", classes={split: {"label": names} for split, names in known.items()})
    monkeypatch.setattr(classify, "read", lambda *_: table)
    task = made(tmp_path)
    assert task.names == ("bad", "good", "mixed")
    assert {row.label for row in task.rows["test"]} == {1, 2}  # good and mixed


def test_words_and_sentences_are_given_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("label,word,sentence\nred,hot,it is good\nblue,cold,it is bad\ngreen,,\n")
    path = written(tmp_path, colours())
    task = made(path, labels=str(file), prompt="{text} Answer: ")
    assert task.names == ("red", "blue", "green") and task.words == ("hot", "cold", "green")
    bare: Any = classify.open(path, tiny_encoders.tokenizer(), seed=3, labels=str(file), kind="encoder")
    assert bare.describe()["sentences"] == ["it is good", "it is bad", "green"]
    assert Labels.of(Labels.read(file).plain()) == Labels.read(file)


def test_a_word_in_a_file_may_be_zero_and_must_be_text_or_an_integer(tmp_path: Path) -> None:
    rows = [{"label": "red", "word": 0, "sentence": False}, {"label": "blue", "word": 1, "sentence": None}]
    known = Labels.read(written(tmp_path, [*rows, {"label": "green", "word": " "}]))
    assert known.words == ("0", "1", "green") and known.sentences == ("false", "1", "green")
    for column, value in (("word", 0.0), ("word", []), ("sentence", {}), ("sentence", 0.5)):
        file = written(tmp_path, [{"label": "red"}, {"label": "blue", column: value}])
        with pytest.raises(DataError, match=f"line 2: expected a {column}, text or an integer, found "):
            Labels.read(file)


def test_a_template_names_the_fields_of_a_row(tmp_path: Path) -> None:
    rows = [{"premise": f"it is {n}", "claim": f"no {n}", "year": n, "label": n % 2} for n in range(40)]
    path = written(tmp_path, rows)
    task = made(path, text="premise", prompt="In {year}: {text}\\nSo {claim}? It is")
    record = Record(rows[7], "x")
    asking = Asking("premise", None, "In {year}: {text}\nSo {claim}? It is")
    assert asking.asked(record).prompt == "In 7: it is 7\nSo no 7? It is"
    assert asking.keep == "? It is" and asking.empty == "In : \nSo ? It is"
    prompts = {row.prompt for rows in task.rows.values() for row in rows}
    assert tuple(TOKENIZER("In 7: it is 7\nSo no 7? It is")["input_ids"]) in prompts
    assert task.ignored == ()
    pair = Asking("premise", "claim").asked(record)
    assert pair == ("it is 7 no 7", "it is 7\nno 7\nLabel:", ("it is 7", "no 7"))
    assert made(path, text="premise", second="claim").ignored == ("year",)


def test_a_long_prompt_loses_its_beginning_and_keeps_its_end(tmp_path: Path) -> None:
    rows = [{"text": "good " * 60 + f"is {n}", "label": COLOURS[n % 3]} for n in range(60)]
    task = made(written(tmp_path, rows), max_length=40)
    assert all(TOKENIZER.decode(row.prompt).endswith("\nLabel:") for row in task.rows["train"])
    assert account(task).truncated["train"] == 48 and "lose the beginning of the prompt" in account(task).warnings[0]


@pytest.mark.parametrize("bos", [True, False])
def test_a_prompt_that_begins_with_the_beginning_of_text_has_it_once_and_keeps_it(tmp_path: Path, bos: bool) -> None:
    tokenizer = tiny_lm.tokenizer(bos=bos)
    path = written(tmp_path, [{"text": "good " * 30 + f"is {n}", "label": COLOURS[n % 3]} for n in range(60)])
    plain: Any = classify.open(path, tiny_lm.tokenizer(), seed=3, prompt="Review: {text} Verdict:")
    own: Any = classify.open(path, tokenizer, seed=3, prompt="<s>Review: {text} Verdict:")
    assert tokenizer.decode(own.rows["train"][0].prompt).startswith("<s>Review: good good")
    assert own.rows == plain.rows and own.empty == plain.empty and own.digest == plain.digest
    short: Any = classify.open(path, tokenizer, seed=3, prompt="<s>Review: {text} Verdict:", max_length=40)
    row, whole = short.rows["train"][0], own.rows["train"][0]
    assert row.length == 40 and row.cut == whole.length - 40 and row.options == whole.options
    assert row.prompt == (whole.prompt[0], *whole.prompt[1 + row.cut :])


def test_splits_have_every_classs_share() -> None:
    labels = [0] * 70 + [1] * 20 + [2] * 10
    limits: Any = {"train": 40, "validation": 10, "test": 20}
    found = stratified({"train": labels}, seed=1, digest="d", limits=limits)
    of = {split: Counter(labels[row] for _, row in rows) for split, rows in found.items()}
    assert of["validation"] == {0: 7, 1: 2, 2: 1} and of["test"] == {0: 7, 1: 2, 2: 1}
    assert of["train"] == {0: 28, 1: 8, 2: 4}
    every = [place for rows in found.values() for place in rows]
    assert len(set(every)) == len(every)
    assert stratified({"train": labels}, seed=1, digest="d", limits=limits) == found
    assert stratified({"train": labels}, seed=2, digest="d", limits=limits) != found
    own = stratified({"train": labels, "test": [1, 0, 1]}, seed=1, digest="d", limits={**limits, "test": 2})
    assert own["test"] == [("test", 0), ("test", 1)]


def test_a_rare_class_keeps_a_row_for_training() -> None:
    labels = [0] * 19 + [1]
    for seed in range(20):
        found = stratified(
            {"train": labels}, seed=seed, digest="d", limits={"train": None, "validation": None, "test": None}
        )
        assert [labels[row] for _, row in found["train"]].count(1) == 1
    with pytest.raises(DataError, match="too few of a class to share"):
        stratified({"train": [0, 1]}, seed=0, digest="d", limits={"train": None, "validation": 1, "test": 1})


def test_the_prior_is_that_of_an_empty_prompt_and_is_taken_out(tmp_path: Path) -> None:
    model = tiny_lm.model("llama")
    task = made(written(tmp_path, colours()), batch_rows=6)
    assert task.prior is None and "prior" not in task.describe()
    settled = task.settled(model)
    empty = torch.tensor([TOKENIZER("Label:")["input_ids"]])
    want = []
    for word in task.words:
        ids = TOKENIZER(word, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.cat([empty, torch.tensor([ids])], dim=1)).logits[0, empty.shape[1] - 1 : -1]
        want.append(-float(cross_entropy(logits, torch.tensor(ids))))
    shares = torch.tensor(want).log_softmax(dim=0)
    assert torch.allclose(torch.tensor(settled.prior), shares, atol=2e-4)
    batch = task.batch(0)
    with torch.inference_mode():
        plain = log_likelihoods(model, batch)
        assert torch.equal(task.logits(model, batch), plain)
        assert torch.equal(settled.logits(model, batch), plain - torch.tensor(settled.prior))
    assert settled.loss(model, batch) != task.loss(model, batch) and settled.digest != task.digest
    assert settled.settled(tiny_lm.model("llama", seed=1)) is settled
    text = settled.describe()["prior"]
    again = made(written(tmp_path, colours()), batch_rows=6, prior=text)
    assert (again.prior, again.digest) == (settled.prior, settled.digest)
    assert "label-word prior (subtracted): blue " in account(settled).line
    off = made(written(tmp_path, colours()), batch_rows=6, prior=False)
    assert off.settled(model) is off and off.digest == task.digest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_lm.model("llama").save_pretrained(folder / "float")
    TOKENIZER.save_pretrained(folder / "float")
    forq.quantize(folder / "float", folder / "q", group_size=16)
    return folder / "q"


OPTIONS = {"task": {"batch_rows": 6}}


def test_a_run_keeps_the_prior_it_began_with(tmp_path: Path, base: Path) -> None:
    path = written(tmp_path, colours())
    run = forq.tune(base, "classify", path, steps=3, eval_every=1, out=tmp_path / "run", settings=OPTIONS)
    text = read_config(tmp_path / "run" / "config.toml").task.options["prior"]
    assert text == run.task.describe()["prior"]
    measured = open_task(TaskConfig(name="classify", data=str(path)), forq.load(base, "cpu"), 0)
    assert measured.describe()["prior"] == text
    tuned = forq.load(tmp_path / "run" / "checkpoint", "cpu")
    score = open_task(run.config.task, tuned, 0).evaluate(tuned, "test")
    assert run.result["test"]["after"]["loss"] == score.loss  # type: ignore[index]
    again = forq.tune(
        base, "classify", path, steps=3, eval_every=1, out=tmp_path / "run", settings=OPTIONS, resume=True
    )
    assert again.task.digest == run.task.digest
    assert forq.verify(tmp_path / "run", base).rebuilt


def test_a_task_opened_in_python_gets_the_prior_of_the_model_it_is_tuned_with(tmp_path: Path, base: Path) -> None:
    task = classify.open(written(tmp_path, colours()), TOKENIZER, seed=0, batch_rows=6)
    run = forq.tune(base, task, steps=2, out=tmp_path / "run")
    text = run.task.describe()["prior"]
    assert (
        text == read_config(tmp_path / "run" / "config.toml").task.options["prior"] and "prior" not in task.describe()
    )
    assert forq.tune(base, task, steps=2, out=tmp_path / "run", resume=True).task.digest == run.task.digest


def test_what_is_predicted_is_what_is_scored(tmp_path: Path, base: Path) -> None:
    path = written(tmp_path, colours())
    run = forq.tune(base, "classify", path, steps=2, out=tmp_path / "run", settings=OPTIONS)
    model = forq.load(tmp_path / "run" / "checkpoint", "cpu")
    path.unlink()
    fresh = colours(24)
    new = written(tmp_path, [{"text": row["text"]} for row in fresh], "new.jsonl")
    task = opened(run.config.task, model, rows_of(str(new)), run.task.describe())
    found = predict(model, task)
    assert [sum(row) for row in found.scores] == pytest.approx([1.0] * 24, abs=1e-5)
    both = tmp_path / "both"
    both.mkdir()
    written(both, colours(30), "train.jsonl")
    written(both, fresh, "test.jsonl")
    options = {**run.config.task.options, "test_rows": 24}
    scored = open_task(TaskConfig(name="classify", data=str(both), options=options), model, 0).evaluate(model, "test")
    right = sum(label == row["label"] for label, row in zip(found.labels, fresh, strict=True))
    assert scored.metrics["accuracy"] == right / 24
    nll = [-torch.tensor(row).log()[found.names.index(x["label"])] for row, x in zip(found.scores, fresh, strict=True)]
    assert float(torch.stack(nll).mean()) == pytest.approx(scored.loss, abs=1e-4)


def test_the_label_is_the_likeliest_before_scores_are_rounded() -> None:
    logits = torch.tensor([[0.0, 1e-7, 0.0], [1.0, 1.0 + 2e-7, 0.0]])
    task: Any = SimpleNamespace(
        rows={"test": [0, 1]},
        names=COLOURS,
        batch_rows=2,
        micro_batch_tokens=None,
        length=lambda row: 1,
        pack=lambda rows, most: rows,
        logits=lambda model, batch: logits[batch],
    )
    found = predict(Any, task)  # type: ignore[arg-type]
    assert found.labels == ("green", "green") and found.scores[0] == (0.333333,) * 3


def test_a_score_counts_classes_and_f1(tmp_path: Path) -> None:
    matrix = confusion([Marks(torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 2, 1]))], 3)
    assert matrix == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert macro_f1(matrix) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert macro_f1([[2, 0, 0], [0, 2, 0], [0, 0, 0]]) == 1.0, "a class without rows that nobody chose counts nothing"
    assert macro_f1([[0, 2], [2, 0]]) == 0.0
    task, model = made(written(tmp_path, colours())), tiny_lm.model("llama")
    score = task.evaluate(model, "train")
    assert score.main == "accuracy" and score.metrics["macro_f1"] == macro_f1(score.confusion)
    assert sum(score.confusion[place][place] for place in range(3)) / score.rows == score.metrics["accuracy"]


def test_an_encoder_uses_label_sentences_or_a_mask(tmp_path: Path) -> None:
    rows = [{"text": f"film number {n} is it", "label": ("good", "bad")[n % 2]} for n in range(40)]
    path = written(tmp_path, rows)
    tokenizer, model = tiny_encoders.tokenizer(), tiny_encoders.model(masked=True)
    for by, said in (("mask", "words"), ("similarity", "sentences")):
        task: Any = classify.open(path, tokenizer, seed=0, kind="masked", by=by, prompt="{text} It was")  # type: ignore[arg-type]
        assert task.describe()[said] == [" bad" if by == "mask" else "bad", " good" if by == "mask" else "good"]
        score = task.evaluate(model, "test")
        assert sum(map(sum, score.confusion)) == 4 and not hasattr(task, "prior")


def test_words_that_a_tokenizer_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    rows = [{"text": f"film {n}", "label": ("horrid", "splendid")[n % 2]} for n in range(40)]
    for by in ("mask", "similarity"):
        with pytest.raises(ConfigError, match="found the same tokens for two of"):
            classify.open(written(tmp_path, rows), tiny_encoders.tokenizer(), seed=0, kind="masked", by=by)  # type: ignore[arg-type]


BAD = [
    ({"text": "a", "label": "pink"}, {}, r"validation.jsonl, line 1: expected a label among 'blue', 'green', 'red'"),
    ({"text": " ", "label": "red"}, {}, r"line 1: the text in 'text' is empty"),
    ({"text": ["a"], "label": "red"}, {}, r"line 1: expected text in 'text', found list"),
    ({"body": "a", "label": "red"}, {}, r"line 1: expected text in 'text', found 'body', 'label'; name the field"),
    ({"text": "a"}, {}, r"line 1: expected a label in 'label', found 'text'"),
    ({"text": "a", "label": None}, {}, r"line 1: expected a label, text or an integer, found None"),
    ({"text": "a", "label": 0.5}, {}, r"line 1: expected a label, text or an integer, found 0.5"),
]


@pytest.mark.parametrize(("row", "options", "says"), BAD)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, row: Any, options: Any, says: str) -> None:
    written(tmp_path, colours(), "train.jsonl")
    written(tmp_path, [row], "validation.jsonl")
    with pytest.raises(DataError, match=says):
        made(tmp_path, **options)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [{"text": f"t {n}", "label": "x"} for n in range(9)],
            "two labels or more in the training rows",
        ),
        ([{"text": "t", "label": f"l{n}"} for n in range(9)], "every one of 9 training rows has a label of its own"),
        ([{"text": "t", "label": ("a\nb", "c")[n % 2]} for n in range(9)], "expected one row of words as its word"),
        ([{"text": "t", "label": ("a_b", "a b")[n % 2]} for n in range(9)], "two labels have the word 'a b'"),
        (
            [{"text": "t", "label": ("_", "a")[n % 2]} for n in range(9)],
            "one row of words as its word, found ''",
        ),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path: Path, rows: Any, says: str) -> None:
    with pytest.raises((DataError, ConfigError), match=says):
        made(written(tmp_path, rows))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompt": "no field"}, "task.prompt: expected a field in braces"),
        ({"prompt": "{text"}, "task.prompt: expected fields in braces"),
        ({"prompt": "{text:>4}"}, "expected names of fields in braces"),
        ({"prompt": "{second}"}, "name the second text with task.second=FIELD"),
        ({"prompt": "{text} {label}"}, "the model would be shown the label"),
        ({"prompt": "{text}"}, "nothing stands before the words where the text is empty"),
        ({"prior": "1,2"}, "or 3 log-probabilities with commas"),
        ({"prior": "a,b,c"}, "or 3 log-probabilities with commas"),
        ({"prior": "nan,0,0"}, "or 3 log-probabilities with commas"),
        ({"labels": "labels.txt"}, r"task\.labels: expected a file of \.jsonl"),
        ({"max_length": 5}, "max_length must be"),
        ({"batch_rows": 0}, "batch_rows must be 1 or more"),
        ({"validation_rows": 0}, "splits need 1 row or more"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        classify.open(written(tmp_path, colours()), tiny_lm.tokenizer(bos=False), seed=0, **options)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,word\nred,a\n", "expected the columns label, word, sentence, found name, word"),
        ("label,colour\nred,a\n", "expected the columns label, word, sentence, found colour"),
        ("label\nred\n", "expected two labels or more, found 1: 'red'"),
        ("label,word\nred,a\nblue,a\ngreen,b\n", "two labels have the word 'a'"),
        ("label,word\nred,a\nred,b\n", "the label 'red' is listed twice"),
        ("label\nred\nblue\n", "expected a label among 'red', 'blue', found 'green'"),
    ],
)
def test_files_of_labels_that_cannot_be_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises((ConfigError, DataError), match=says):
        made(written(tmp_path, colours()), labels=str(tmp_path / "labels.csv"))


def test_a_head_less_checkpoint_does_not_say_which_labels_there_are(tmp_path: Path, base: Path) -> None:
    new = rows_of(str(written(tmp_path, [{"text": "a"}])))
    model = forq.load(base, "cpu")
    with pytest.raises(ConfigError, match=r"expected the labels in a file, found none: --set task\.labels=FILE"):
        opened(TaskConfig(name="classify", data=""), model, new, {})
    with pytest.raises(ConfigError, match="expected a classification task on texts, such as classify or sst2, found"):
        opened(TaskConfig(name="text", data=""), model, new, {})
    preset = opened(TaskConfig(name="sst2", data=""), model, [Record({"sentence": "it is"}, "x")], {})
    assert predict(model, preset).names == ("terrible", "great")


def test_a_sorted_file_over_its_limit_gives_every_class_its_share() -> None:
    from forq.tasks.rows.stratified import stratified

    known = {"train": [0, 1] * 20, "validation": [0] * 30 + [1] * 30, "test": [0] * 60 + [1] * 60}
    found = stratified(known, seed=0, digest="d", limits={"train": None, "validation": 10, "test": 40})
    for split, most in (("validation", 10), ("test", 40)):
        labels = [known[split][row] for _, row in found[split]]
        assert sorted(labels) == [0] * (most // 2) + [1] * (most // 2)


ROWS = [{"text": f"film number {n} is it", "label": ("good", "bad")[n % 2]} for n in range(40)]


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("[CLS] {text} It was [MASK]. [SEP]", "{text} It was"),
        ("[CLS] {text} It was", "{text} It was"),
        ("{text} It was [MASK].", "{text} It was"),
    ],
)
def test_a_prompt_of_an_encoder_may_bring_its_own_frame_and_mask(prompt: str, plain: str, tmp_path: Path) -> None:
    path, tokenizer = written(tmp_path, ROWS), tiny_encoders.tokenizer()
    own, as_usual = (
        classify.open(path, tokenizer, seed=0, kind="masked", prompt=words, balanced=False) for words in (prompt, plain)
    )
    assert [row.tokens for row in own.rows["train"]] == [row.tokens for row in as_usual.rows["train"]]


@pytest.mark.parametrize("kind", ["encoder", "classifier"])
def test_a_text_of_an_encoder_may_bring_its_own_frame(kind: str, tmp_path: Path) -> None:
    tokenizer, opened = tiny_encoders.tokenizer(), []
    for name, around in (("plain", "{}"), ("framed", "[CLS] {} [SEP]")):
        (tmp_path / name).mkdir()
        rows = [{**row, "text": around.format(row["text"])} for row in ROWS]
        head = ("bad", "good") if kind == "classifier" else ()
        opened.append(classify.open(written(tmp_path / name, rows), tokenizer, seed=0, kind=kind, head=head))  # type: ignore[arg-type]
    tokens = [sorted(row.tokens for split in task.rows.values() for row in split) for task in opened]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("good", "bad", "-"), ["-"]),
        (("0", "1", "?"), ["?"]),
        (("0", "1", "-1"), ["-1"]),
        (("0", "1", "2", "-1"), ["-1"]),
        (("1", "2", "-1"), ["-1"]),
        (("-1", "1"), []),
        (("-2", "-1", "0", "1"), []),
        (("good", "bad", "-1"), []),
    ],
)
def test_marks_for_no_label_are_asked_about(labels: tuple[str, ...], found: list[str]) -> None:
    assert list(looks_missing(labels * 3)) == found


@pytest.mark.parametrize(
    ("label", "says"), [("NaN", "6 rows have the label 'NaN': is it a missing label?"), ("nah", "")]
)
def test_a_label_that_looks_missing_is_asked_about(label: str, says: str, tmp_path: Path) -> None:
    rows = [f"film {n},{label if n % 8 == 0 else ('good', 'bad')[n % 2]}" for n in range(48)]
    path = tmp_path / "films.csv"
    path.write_text("\n".join(["text,label", *rows, ""]))
    warnings = account(classify.open(path, tiny_lm.tokenizer(), seed=0, prior=False)).warnings
    assert says in "".join(warnings) and len(warnings) == (says != "")
    labels = tmp_path / "labels.txt.csv"
    labels.write_text(f"label\ngood\nbad\n{label}\n")
    listed = classify.open(path, tiny_lm.tokenizer(), seed=0, prior=False, labels=str(labels))
    assert account(listed).warnings == (), "it is listed, so it is meant"
