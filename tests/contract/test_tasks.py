"""Laws of every task, found by listing, on the tiny data set each of them writes."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from forq.errors import ConfigError
from forq.plugins import registry
from forq.tasks import Predicts
from tests import tiny_lm

# Of language models: tasks of a pipeline or a graph are opened with it, see test_diffusion.py, test_classify_images.py.
NAMES = [name for name in registry.names("tasks") if name not in ("text_to_image", "classify_images")]
SPLITS = ("train", "validation", "test")


def test_there_are_tasks():
    assert {"text", "sst2"} <= set(NAMES)


SETTINGS = {"max_length": 64, "batch_rows": 4, "train_rows": 40, "validation_rows": 20}


@pytest.fixture(scope="module", params=NAMES)
def made(request, tmp_path_factory):
    module = registry.get("tasks", request.param)
    data = module.example(tmp_path_factory.mktemp(request.param))

    def task(seed=3, bos=True, data=data, **settings):
        return module.open(data, tiny_lm.tokenizer(bos), seed=seed, **(SETTINGS | settings))

    return module, data, task


def flat(batch) -> list:
    values = (getattr(batch, name) for name in batch.__slots__)
    return [value.tolist() if isinstance(value, torch.Tensor) else value for value in values]


def test_a_batch_is_a_function_of_data_seed_and_step(made):
    task = made[2]
    one, other = task(), task()
    steps = [5, 0, 100_000, 3, 5]
    found = {step: flat(one.batch(step)) for step in steps}
    assert {step: flat(other.batch(step)) for step in reversed(steps)} == found
    assert len({json.dumps(batch) for batch in found.values()}) == len(found)
    assert one.digest == other.digest
    with pytest.raises(ConfigError):
        one.batch(-1)


PROGRAM = """
import json, sys
from pathlib import Path
import numpy, torch
from forq.plugins import registry
from tests import tiny_lm
from tests.contract.test_tasks import NAMES, SETTINGS, flat
torch.manual_seed(12345)
numpy.random.seed(1)
told = {}
for name in NAMES:
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    module = registry.get("tasks", name)
    task = module.open(module.example(folder), tiny_lm.tokenizer(), seed=3, **SETTINGS)
    told[name] = [task.digest, flat(task.batch(7))]
json.dump(told, sys.stdout)
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What another process with other generators finds, per task."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "src")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("elsewhere"))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "77"},
    )
    return json.loads(done.stdout)


def test_a_batch_is_the_same_in_another_process(made, elsewhere):
    module, _, task = made
    here = [task().digest, flat(task().batch(7))]
    assert elsewhere[module.__name__.rsplit(".", 1)[1]] == json.loads(json.dumps(here))


def test_an_epoch_shows_every_row_once(made):
    alike = {"balanced": False} if balances(made[0]) else {}
    task = made[2](train_rows=12, **alike)
    for epoch in (0, 1):
        rows = [row for step in range(3) for row in lines(task.batch(3 * epoch + step))]
        assert sorted(rows) == sorted(row for batch in task.batches("train") for row in lines(batch))
    assert flat(task.batch(0)) != flat(task.batch(3))


def balances(module) -> bool:
    """Whether a task has classes: by default its batches have as many rows of each."""
    return "balanced" in inspect.signature(module.open).parameters


def test_an_epoch_of_a_class_shows_every_row_of_it_once(made):
    if not balances(made[0]):
        pytest.skip("a task without classes")
    task = made[2](train_rows=12)
    own: dict[int, list] = {}
    for batch in task.batches("train"):
        for row, label in zip(lines(batch), batch.labels.tolist(), strict=True):
            own.setdefault(label, []).append(row)
    shown: dict[int, list] = {label: [] for label in own}
    for step in range(24):
        batch = task.batch(step)
        counts = Counter(dict.fromkeys(own, 0))
        for row, label in zip(lines(batch), batch.labels.tolist(), strict=True):
            shown[label].append(row)
            counts[label] += 1
        assert max(counts.values()) - min(counts.values()) <= 1
    for label, rows in own.items():
        for start in (0, len(rows)):
            assert sorted(shown[label][start : start + len(rows)]) == sorted(rows)


def lines(batch) -> list[tuple[int, ...]]:
    """Rows without their padding, which is token 0 and no scored place."""
    return [tuple(row[: len(row) - _padding(row)]) for row in batch.input_ids.tolist()]


def _padding(row: list[int]) -> int:
    return next((count for count, token in enumerate(reversed(row)) if token != 0), len(row))


def test_seeds_differ_and_the_global_generators_do_not_matter(made):
    task = made[2]
    assert flat(task(seed=3).batch(0)) != flat(task(seed=4).batch(0))
    before = flat(task().batch(2))
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    assert flat(task().batch(2)) == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_digest_changes_with_data_and_settings(made, tmp_path):
    module, _, task = made
    alike = {task(balanced=False).digest} if balances(module) else set()
    whole = {"train_rows": None, "validation_rows": 100, "test_rows": None}
    digests = {task(**whole).digest, task().digest, task(bos=False).digest, task(batch_rows=5).digest}
    digests |= alike
    again = module.example(tmp_path)
    files = [again] if again.is_file() else sorted(again.iterdir())
    for path in files:
        held = path.read_bytes()
        place = held.find(b"4", len(held) // 2)
        path.write_bytes(held[:place] + b"7" + held[place + 1 :])
        digests.add(task(data=again, **whole).digest)
    assert len(digests) == 4 + len(alike) + len(files)
    assert all(len(digest) == 64 and int(digest, 16) for digest in digests)


def test_splits_share_no_row(made):
    task = made[2]()
    found = {split: [row for batch in task.batches(split) for row in lines(batch)] for split in SPLITS}
    every = [row for rows in found.values() for row in rows]
    assert all(found.values()) and len(set(every)) == len(every)
    trained = {row for step in range(40) for row in lines(task.batch(step))}
    assert trained <= set(found["train"])


def test_evaluation_is_deterministic_and_keeps_to_its_limit(made):
    task, model = made[2](validation_rows=10, test_rows=9), tiny_lm.model("llama")
    score = task.evaluate(model, "validation")
    assert score == task.evaluate(model, "validation") and score.rows == 10
    assert task.evaluate(model, "test", limit=6).rows == 6
    assert task.evaluate(model, "test") != score
    with pytest.raises(ConfigError):
        task.evaluate(model, "test", limit=0)


def test_a_loss_has_no_grad_and_its_twin_has(made):
    task, model = made[2](), tiny_lm.model("llama")
    batch = task.batch(1)
    twin = task.loss_tensor(model, batch)
    assert twin.requires_grad and twin.dtype == torch.float32 and twin.shape == ()
    assert isinstance(task.loss(model, batch), float)
    assert task.loss(model, batch) == pytest.approx(float(twin.detach()), abs=1e-6)
    twin.backward()
    assert any(bool(value.grad.abs().sum() > 0) for value in model.parameters())


def test_losses_by_row_have_the_mean_of_the_loss_to_the_last_bit(made):
    task, model = made[2](), tiny_lm.model("llama")
    for step in range(3):
        batch = task.batch(step)
        answer = task.losses(model, batch)
        assert answer.mean == task.loss(model, batch) and answer.forwards == 1
        assert answer.each is not None and len(answer.each) == len(batch.input_ids)
        assert sum(answer.each) / len(answer.each) == pytest.approx(answer.mean, rel=1e-6)
        assert len(set(answer.each)) > 1


def test_predictions_have_the_mean_of_the_loss_and_the_rows_of_the_losses(made):
    task, model = made[2](), tiny_lm.model("llama")
    assert isinstance(task, Predicts)
    uniform = torch.linspace(0.01, 0.99, 4096, dtype=torch.float64)
    for step in range(2):
        batch = task.batch(step)
        here = task.predictions(model, batch, None, lambda count: uniform[:count])
        again = task.predictions(model, batch, here, lambda count: uniform[:count])
        answer = task.losses(model, batch)
        assert here.mean == answer.mean and tuple(here.each.tolist()) == pytest.approx(answer.each, rel=1e-6)
        assert torch.equal(here.outputs, again.outputs) and not here.outputs.requires_grad
        assert len(here.outputs) == len(here.weights) == len(here.row) and int(here.row.max()) == len(here.each) - 1
        assert bool((here.weights >= 0).all())


def test_a_description_is_plain_data(made):
    task = made[2]()
    told = json.loads(json.dumps(dict(task.describe())))
    assert told["digest"] == task.digest and set(told["rows"]) == set(SPLITS)
    assert all(told["tokens"][split] > 0 for split in SPLITS) and told["batch_rows"] == 4


@pytest.mark.parametrize("settings", [{"batch_rows": 0}, {"max_length": 1}, {"train_rows": 0}])
def test_impossible_settings_are_refused(made, settings):
    module, data, _ = made
    with pytest.raises(ConfigError):
        module.open(data, tiny_lm.tokenizer(), seed=0, **settings)
