"""Classification heads: the logits are transformers', labels find the head's classes, tuning saves what it scored."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as WITH_HEAD

import forq
from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.layers.kernels.reference import dequantise
from forq.layers.linear import QuantLinear
from forq.models.adapters import peft as adapters
from forq.models.families import FAMILIES, classes_of
from forq.models.skeleton import configuration
from forq.runs import journal
from forq.runs.config import TaskConfig
from forq.runs.header import require_same
from forq.runs.open_task import open_task
from forq.runs.predict import opened, predict
from forq.scalars.moves import Move, Term
from forq.tasks import classify
from forq.tasks.kinds.head import Head, Headed, called, places_in
from forq.tasks.rows.account import account
from forq.tasks.rows.record import Record
from forq.tasks.rows.sentences import texts
from forq.tokens.model import Kind
from tests import tiny_encoders, tiny_heads

KINDS = sorted(FAMILIES.keys() & WITH_HEAD.keys())
LENGTHS = (3, 20, 1, 11, 7, 12, 2)
ROWS = [[5 + (3 * row + place) % 30 for place in range(length)] for row, length in enumerate(LENGTHS)]
OWN = {"task": {"validation_rows": 10, "test_rows": 9, "batch_rows": 4}}


def theirs_of(folder: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()


def alone(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """transformers' own logits, one row at a time."""
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows])


def ours_of(model: Any, rows: list[list[int]], most: int | None = None) -> torch.Tensor:
    with torch.no_grad():
        return Head().logits(model, texts(rows, [0] * len(rows), most))


def near(found: torch.Tensor, want: torch.Tensor, share: float = 1e-5) -> bool:
    return bool((found - want).abs().max() <= share * want.abs().max())


def reviews(folder: Path, bad: str = "BAD", good: str = "GOOD") -> Path:
    path = folder / "reviews.csv"
    lines = [f"film number {n} is {'good' if n % 2 else 'bad'} .,{good if n % 2 else bad}" for n in range(100)]
    path.write_text("\n".join(["text,label", *lines, ""]))
    return path


def test_encoders_and_decoders_are_among_them() -> None:
    assert {"bert", "distilbert", "roberta", "mpnet", "llama", "qwen2", "gpt2", "gemma2"} <= set(KINDS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_transformers(tmp_path: Path, kind: str) -> None:
    folder = tiny_heads.folder(tmp_path / "float", kind, ("A", "B", "C"))
    model = forq.load(folder, "cpu")
    assert model.kind == "classifier"
    want = alone(theirs_of(folder), ROWS)
    found = ours_of(model, ROWS)
    assert found.dtype == torch.float32 and near(found, want)
    assert len(set(found.argmax(dim=1).tolist())) > 1 or kind not in ("bert", "llama")
    assert near(ours_of(model, ROWS, most=24), want)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "mpnet", "llama", "gpt2", "opt"])
def test_quantized_it_is_transformers_model_of_the_dequantized_weights(tmp_path: Path, kind: str) -> None:
    folder = tiny_heads.folder(tmp_path / "float", kind)
    forq.quantize(folder, tmp_path / "q", group_size=16)
    ours, theirs = forq.load(tmp_path / "q", "cpu"), theirs_of(folder)
    layers = [(name, module) for name, module in ours.named_modules() if isinstance(module, QuantLinear)]
    assert layers and not any("score" in name or "classifier" in name or "pooler" in name for name, _ in layers)
    for name, module in layers:
        weight = dequantise(module.weight, module.scales)
        theirs.get_submodule(name).weight.data = weight.t().contiguous() if kind == "gpt2" else weight
    assert near(ours_of(ours, ROWS), alone(theirs, ROWS))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_two_texts_are_joined_as_the_tokenizer_joins_them(tmp_path: Path, kind: str) -> None:
    folder = tiny_heads.folder(tmp_path / "float", kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [("film number 3 is good", "It was great ."), ("bad", "the story says no ."), ("a movie .", "yes")]
    path = tmp_path / "pairs.jsonl"
    rows = [{"one": a, "two": b, "label": n % 2} for n, (a, b) in enumerate(pairs * 10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"text": "one", "second": "two", "train_rows": 3}
    model, theirs = forq.load(folder, "cpu"), theirs_of(folder)
    task: Any = open_task(TaskConfig(name="classify", data=str(path), options=options), model, 0)
    for row in task.rows["train"]:
        with torch.no_grad():
            found = task.logits(model, task.pack([row, *task.rows["test"]]))[0]
        a, b = next(pair for pair in pairs if tokenizer(*pair)["input_ids"] == list(row.tokens))
        inputs = tokenizer(a, b, return_tensors="pt")
        given = inputs if kind == "bert" else {name: x for name, x in inputs.items() if name != "token_type_ids"}
        with torch.no_grad():
            assert near(found, theirs(**given).logits[0])


def test_the_second_type_matters_to_bert(tmp_path: Path) -> None:
    model = forq.load(tiny_heads.folder(tmp_path / "float", "bert"), "cpu")
    rows, labels = [[2, 9, 3, 11, 12, 3]], [0]
    with torch.no_grad():
        plain, typed = (Head().logits(model, texts(rows, labels, None, second)) for second in ([], [3]))
    assert not torch.allclose(plain, typed, atol=1e-3)


def test_a_long_pair_loses_the_end_of_its_longer_text() -> None:
    from forq.tasks.kinds.examples import Example

    row: Any = Headed(tiny_encoders.pairs(), ("a", "b"), 9).row(Example("", "", 1, ("good " * 20, "bad great")))
    decoded = tiny_encoders.pairs().decode(row.tokens)
    assert decoded == "[CLS] good good good good [SEP] bad great [SEP]" and row.cut == 16
    assert row.second == 6 and row.label == 1


def test_a_decoder_reads_its_last_token_that_is_no_padding(tmp_path: Path) -> None:
    folder = tiny_heads.folder(tmp_path / "float", "llama", pad_token_id=2)
    rows = [[5, 6, 7, 2, 2], [9, 2], [11, 12, 13]]
    want = alone(theirs_of(folder), rows)
    assert near(ours_of(forq.load(folder, "cpu"), rows), want)


@pytest.mark.parametrize(
    ("head", "labels", "ordered", "places"),
    [
        (("NEG", "POS"), ("pos", "neg"), False, (1, 0)),
        (("NEG", "NEUTRAL", "POS"), ("neg", "pos"), False, (0, 2)),
        (("NEG", "POS"), ("0", "1"), False, (0, 1)),
        (("NEG", "POS"), ("1", "0"), False, (1, 0)),
        (("LABEL_0", "LABEL_1"), ("bad", "good"), False, (0, 1)),
        (("NEG", "POS"), ("bad", "good"), True, (0, 1)),
    ],
)
def test_labels_find_the_heads_classes(head: Any, labels: Any, ordered: bool, places: Any) -> None:
    assert places_in(head, labels, ordered=ordered) == places


@pytest.mark.parametrize(
    ("head", "labels", "says"),
    [
        (("NEG", "POS"), ("bad", "good"), r"expected labels that the model's head knows \(id2label: NEG, POS\)"),
        (("NEG", "POS"), ("a", "b", "c"), "as many labels as the model's head has classes, 2"),
        (("A", "B", "C"), ("0", "1"), "as many labels as the model's head has classes, 3"),
    ],
)
def test_labels_that_the_head_does_not_have_are_refused(head: Any, labels: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        places_in(head, labels, ordered=False)


@pytest.mark.parametrize(
    ("head", "labels", "places", "names"),
    [
        (("NEG", "POS"), ("pos", "neg"), (1, 0), ("NEG", "POS")),
        (("NEG", "NEUTRAL", "POS"), ("neg", "pos"), (0, 2), ("NEG", "NEUTRAL", "POS")),
        (("NEG", "POS"), ("1", "0"), (1, 0), ("NEG", "POS")),
        (("LABEL_0", "LABEL_1"), ("bad", "good"), (0, 1), ("bad", "good")),
        (("LABEL_0", "LABEL_1"), ("1", "0"), (1, 0), ("0", "1")),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("label_2", "label_0"), (2, 0), ("label_0", "LABEL_1", "label_2")),
        (("NEG", "POS"), ("bad", "good"), (0, 1), ("bad", "good")),
    ],
)
def test_classes_that_have_no_names_are_called_by_the_labels(head: Any, labels: Any, places: Any, names: Any) -> None:
    assert called(head, labels, places) == names


class Rows(list[dict[str, Any]]):
    """Rows of a data set whose labels are numbers with names."""

    def __init__(self, names: list[str], labels: list[int]) -> None:
        super().__init__({"text": f"film number {n} is good", "label": label} for n, label in enumerate(labels))
        self.features = {"text": None, "label": SimpleNamespace(names=names)}


def test_a_head_without_names_has_its_classes_in_the_order_of_the_data_sets_numbers(monkeypatch: Any) -> None:
    """As a trainer of transformers does, which gives the head the numbers; the names stand in another order."""
    names, labels = ["World", "Sports", "Business", "Sci/Tech"], [n % 3 for n in range(60)]
    library = SimpleNamespace(load_dataset=lambda name: {"train": Rows(names, labels)})
    monkeypatch.setitem(sys.modules, "datasets", library)
    head = tuple(f"LABEL_{place}" for place in range(4))
    tokenizer: Any = tiny_heads.tokenizer("bert")
    task: Any = classify.open("hf:news", tokenizer, seed=0, kind="classifier", head=head)  # type: ignore[arg-type]
    assert task.names == tuple(names) and "guessed" not in task.describe()
    right = {tuple(tokenizer(f"film number {n} is good")["input_ids"]): label for n, label in enumerate(labels)}
    assert all(right[row.tokens] == row.label for rows in task.rows.values() for row in rows)
    # A run goes on with the classes of its description, as an older one does that had them by the alphabet.
    again: Any = classify.open(
        "hf:news",  # type: ignore[arg-type]
        tokenizer,
        seed=0,
        kind="classifier",
        head=head,
        described=task.describe(),
    )
    assert again.digest == task.digest and again.names == task.names
    older: Any = {"kind": "classifier", "head": head[:3], "reading": 2}
    before: Any = classify.open("hf:news", tokenizer, seed=0, **older)  # type: ignore[arg-type]
    assert before.names == ("Business", "Sports", "World") and before.describe()["guessed"] == list(before.names)


def test_the_order_that_a_head_without_names_is_taken_to_have_is_said(tmp_path: Path) -> None:
    options: Any = {"kind": "classifier", "head": ("LABEL_0", "LABEL_1")}
    task = classify.open(reviews(tmp_path), tiny_heads.tokenizer("bert"), seed=0, **options)
    assert "taken in the labels' order, LABEL_0 BAD, LABEL_1 GOOD; a file task.labels" in account(task).line
    (tmp_path / "labels.csv").write_text("label\nGOOD\nBAD\n")
    options["labels"] = str(tmp_path / "labels.csv")
    task = classify.open(reviews(tmp_path), tiny_heads.tokenizer("bert"), seed=0, **options)
    assert "LABEL_0" not in account(task).line


def test_a_file_of_labels_names_what_is_predicted(tmp_path: Path) -> None:
    model = forq.load(tiny_heads.folder(tmp_path / "float", "bert", ("LABEL_0", "LABEL_1")), "cpu")
    (tmp_path / "labels.csv").write_text("label\nGOOD\nBAD\n")
    config = TaskConfig(name="classify", data="", options={"labels": str(tmp_path / "labels.csv")})
    rows = [Record({"text": f"film number {n} is good"}, "x") for n in range(9)]
    found = predict(model, opened(config, model, rows, {}))
    assert found.names == ("GOOD", "BAD") and set(found.labels) <= {"GOOD", "BAD"}
    plain = TaskConfig(name="classify", data="")
    assert predict(model, opened(plain, model, rows, {})).names == ("LABEL_0", "LABEL_1")


def test_a_run_that_called_its_classes_label_0_goes_on(tmp_path: Path) -> None:
    folder, out = tiny_heads.folder(tmp_path / "float", "bert", ("LABEL_0", "LABEL_1")), tmp_path / "run"
    forq.quantize(folder, tmp_path / "q", group_size=16)
    forq.tune(tmp_path / "q", "classify", reviews(tmp_path), steps=1, out=out, settings=OWN)
    now = journal.read(out / "journal.jsonl").header
    assert now["task"]["names"] == ["BAD", "GOOD"]
    require_same(out, {**now, "task": {**now["task"], "names": ["LABEL_0", "LABEL_1"]}}, now)
    # The order that was guessed is a warning: the run goes on where a file gives the same one.
    told = {name: value for name, value in now["task"].items() if name != "guessed"}
    assert len(told) < len(now["task"])
    require_same(out, now, {**now, "task": told})


def test_the_names_of_the_classes_are_the_configurations() -> None:
    assert classes_of({"id2label": {"1": "b", "0": "a"}}) == ("a", "b")
    assert classes_of({}) == ("LABEL_0", "LABEL_1") and classes_of({"num_labels": 3})[2] == "LABEL_2"
    for config in (
        {"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 2},
        {"id2label": {"0": "a"}, "num_labels": 3},
    ):
        theirs = configuration({"model_type": "bert", **config}).id2label
        assert classes_of(config) == tuple(theirs.values()) == tuple(f"LABEL_{place}" for place in theirs)
    for config in ({"problem_type": "regression"}, {"id2label": {"a": "b"}}, {"id2label": ["x"]}, {"num_labels": "9"}):
        with pytest.raises(ConfigError):
            classes_of(config)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_tuned_saved_replayed_and_loaded_again(tmp_path: Path, kind: str) -> None:
    folder = tiny_heads.folder(tmp_path / "float", kind)
    forq.quantize(folder, tmp_path / "q", group_size=16)
    run = forq.tune(tmp_path / "q", "classify", reviews(tmp_path), steps=3, out=tmp_path / "run", settings=OWN)
    described = json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[0])["task"]
    assert (described["by"], described["names"]) == ("head", ["BAD", "GOOD"]) and "prior" not in described
    again = forq.load(tmp_path / "run" / "checkpoint", "cpu")
    task = open_task(run.config.task, again, 0)
    score = task.evaluate(again, "test")
    assert run.result["test"]["after"]["macro_f1"] == score.metrics["macro_f1"]  # type: ignore[index]
    assert sum(map(sum, score.confusion)) == score.rows == 9
    assert json.loads((tmp_path / "run" / "result.json").read_text())["confusion"]["names"] == ["BAD", "GOOD"]
    forq.replay(tmp_path / "run", tmp_path / "q", tmp_path / "replayed")
    assert Checkpoint.open(tmp_path / "replayed").digest() == Checkpoint.open(tmp_path / "run" / "checkpoint").digest()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft reads a property that transformers renamed
def test_adapters_of_a_head_are_saved_and_read_by_peft(tmp_path: Path) -> None:
    folder = tiny_heads.folder(tmp_path / "float", "bert")
    forq.tune(folder, "classify", reviews(tmp_path), move="lora", steps=2, out=tmp_path / "run", settings=OWN)
    written = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert written["task_type"] is None and written["modules_to_save"] is None
    model = forq.load(folder, "cpu")
    forq.add_lora(model, rank=2)
    moved = forq.space(model, "lora", "spread")
    moved.apply(Move((Term(3, 1.0, "rademacher"),)))
    adapters.write(tmp_path / "adapter", model.checkpoint, model.adapters, moved.exported())
    found = ours_of(forq.load(folder, "cpu", adapter=tmp_path / "adapter"), ROWS)
    assert not near(found, ours_of(forq.load(folder, "cpu"), ROWS), 1e-3)
    peft = pytest.importorskip("peft")
    theirs = peft.PeftModel.from_pretrained(theirs_of(folder), tmp_path / "adapter").eval()
    assert near(found, alone(theirs, ROWS))


def test_every_kind_of_model_has_a_task_of_peft() -> None:
    assert set(adapters._TASKS) == set(get_args(Kind))


def test_the_head_itself_can_be_trained(tmp_path: Path) -> None:
    folder = tiny_heads.folder(tmp_path / "float", "bert")
    forq.quantize(folder, tmp_path / "q", group_size=16)
    run = forq.tune(
        tmp_path / "q",
        "classify",
        reviews(tmp_path),
        move="dense",
        steps=2,
        out=tmp_path / "run",
        settings=OWN,
    )
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= {leaf.name for leaf in run.space.leaves}


def test_a_head_serves_the_presets_too(tmp_path: Path) -> None:
    from forq.tasks import cb

    model = forq.load(tiny_heads.folder(tmp_path / "float", "bert", ("contradiction", "entailment", "neutral")), "cpu")
    data = cb.example(tmp_path)
    task: Any = open_task(TaskConfig(name="cb", data=str(data), options={"max_length": 64}), model, 0)
    plain: Any = cb.open(data, tiny_encoders.pairs(), seed=0, kind="encoder")
    order = {0: 1, 1: 0, 2: 2}  # entailment, contradiction, neutral
    assert [row.label for row in task.rows["test"]] == [order[row.label] for row in plain.rows["test"]]
    assert task.describe()["names"] == ["contradiction", "entailment", "neutral"]


def test_models_and_tasks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = forq.load(tiny_heads.folder(tmp_path / "float", "bert"), "cpu")

    def made(**options: Any) -> Any:
        return open_task(TaskConfig(name="classify", data=str(reviews(tmp_path)), options=options), model, 0)

    with pytest.raises(ConfigError, match="auto or head for a model with a classification head, found 'mask'"):
        made(by="mask")
    with pytest.raises(ConfigError, match=r"task\.prior: expected a decoder"):
        made(prior="-0.5,-0.9")
    with pytest.raises(ConfigError, match="max_length must be 3 or more for a text"):
        made(max_length=2)
    with pytest.raises(ConfigError, match="the model is in training mode"):
        made().loss(model.train(), made().batch(0))
    with pytest.raises(ConfigError, match="'text' expects a causal language model, found BertForSeq"):
        open_task(TaskConfig(name="text", data=str(tmp_path)), model, 0)
    one = forq.load(tiny_heads.folder(tmp_path / "one", "bert", ("only",)), "cpu")
    with pytest.raises(ConfigError, match="a classification head of 2 classes or more, found 1"):
        open_task(TaskConfig(name="classify", data=str(reviews(tmp_path))), one, 0)
    config = json.loads((tmp_path / "float" / "config.json").read_text())
    (tmp_path / "float" / "config.json").write_text(
        json.dumps(config | {"architectures": ["BertForTokenClassification"]})
    )
    with pytest.raises(FormatError, match="ForSequenceClassification, found 'BertForTokenClassification'"):
        forq.load(tmp_path / "float", "cpu")
