"""Rows and the positions of a model: what is too long is known before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import forq
from forq.checkpoints import Checkpoint
from forq.errors import ConfigError
from forq.models.positions import positions
from forq.runs import predict
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from forq.tasks import account
from forq.tasks.rows.sentences import hidden, texts
from tests import tiny_encoders, tiny_heads, tiny_lm

LIMIT = 64


def saved(folder: Path, **settings: Any) -> Path:
    tiny_lm.model("llama", **settings).save_pretrained(folder)
    tiny_lm.tokenizer().save_pretrained(folder)
    return folder


def reviews(folder: Path, words: int) -> Path:
    path = folder / "reviews.csv"
    rows = [f"film number {n}{' is' * (words if n % 16 == 0 else 0)},{('good', 'bad')[n % 2]}" for n in range(48)]
    path.write_text("\n".join(["text,label", *rows, ""]))
    return path


def opened(data: Path, model: Any, task: str = "classify", **options: Any) -> Any:
    return open_task(TaskConfig(name=task, data=str(data), options={"prior": False, **options}), model, 0)


def test_the_default_limit_gives_way_to_the_models_positions(tmp_path):
    model = forq.load(saved(tmp_path / "model", max_position_embeddings=LIMIT), "cpu")
    task = opened(reviews(tmp_path, 300), model)
    assert task.max_length == task.longest == LIMIT
    rows = account(task)
    assert "truncated at 64 tokens, the model's positions)" in rows.line
    assert task.evaluate(model, "train").rows == len(task.rows["train"])
    alone = opened(reviews(tmp_path, 300), Checkpoint.open(tmp_path / "model"))
    assert alone.digest == task.digest, "the checkpoint alone knows its positions"

    with pytest.raises(ConfigError, match=r"task\.max_length=400: .* at most 64 tokens, .* --set task\.max_length=64"):
        opened(reviews(tmp_path, 300), model, max_length=400)
    assert opened(reviews(tmp_path, 2), model, max_length=400).max_length == 400, "no row needs it"


def test_the_digest_of_rows_that_fit_does_not_depend_on_the_model(tmp_path):
    small = Checkpoint.open(saved(tmp_path / "small", max_position_embeddings=LIMIT))
    large = Checkpoint.open(saved(tmp_path / "large", max_position_embeddings=4096))
    data = reviews(tmp_path, 2)
    assert opened(data, small).digest == opened(data, large).digest and opened(data, small).max_length == 512
    assert opened(reviews(tmp_path, 300), large).max_length == 512


def test_rows_to_predict_lose_what_the_model_has_no_positions_for(tmp_path):
    model = forq.load(saved(tmp_path / "model", max_position_embeddings=LIMIT), "cpu")
    labels = tmp_path / "labels.csv"
    labels.write_text("label\ngood\nbad\n")
    data = reviews(tmp_path, 300)
    config = TaskConfig(name="classify", data=str(data), options={"labels": str(labels), "prior": False})
    task = predict.opened(config, model, predict.rows_of(str(data)), {})
    assert len(predict.predict(model, task).labels) == 48


def test_prompts_and_windows_give_way_too(tmp_path):
    model = forq.load(saved(tmp_path / "model", max_position_embeddings=32), "cpu")
    (tmp_path / "pairs.csv").write_text(
        "prompt,completion\n" + "".join(f"film {n}{' is' * 40}, good\n" for n in range(30))
    )
    (tmp_path / "text.txt").write_text("film number 3 is good .\n" * 2000)
    for name in ("pairs.csv", "text.txt"):
        task = open_task(TaskConfig(name=("text", "completion")[name[0] == "p"], data=str(tmp_path / name)), model, 0)
        assert task.max_length == 32 and task.evaluate(model, "test").loss > 0
    exact = TaskConfig(name="completion", data=str(tmp_path / "pairs.csv"), options={"max_length": 33})
    assert open_task(exact, model, 0).evaluate(model, "test").rows, "the last token of a row needs no position"


def test_a_task_of_ones_own_is_refused_before_a_run_begins(tmp_path):
    from forq.tasks import classify

    model = forq.load(saved(tmp_path / "model", max_position_embeddings=LIMIT), "cpu")
    task = classify.open(reviews(tmp_path, 300), model.tokenizer, seed=0, prior=False)
    with pytest.raises(ConfigError, match=r"the model's positions, found one of .*; open the task with max_length=64"):
        forq.tune(model, task, steps=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", sorted(tiny_encoders.KINDS))
def test_positions_of_encoders_are_those_that_a_forward_takes(kind, tmp_path):
    folder = tiny_heads.folder(tmp_path / "float", kind)
    model = forq.load(folder, "cpu")
    limit = positions(model)
    assert limit is not None and limit == positions(Checkpoint.open(folder))
    with torch.inference_mode():
        hidden(model, texts([[3] * limit], [0]))
        with pytest.raises(ConfigError, match=f"the model has {limit} positions"):
            hidden(model, texts([[3] * (limit + 1)], [0]))
