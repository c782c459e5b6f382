"""A loaded model that an earlier run or optimizer moved: the next run begins from the checkpoint all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import forq
from forq.errors import ConfigError
from forq.models.leaves import trainable
from forq.models.loaded import LoadedModel
from forq.models.quantized import kernels
from forq.runs import journal
from forq.runs.base_values import restore_base
from forq.runs.run import Run
from tests.fixtures import CASES, example

KINDS = ("scales", "offsets", "codebooks", "codes", "zeros", "activations", "norms", "biases", "embeddings", "dense")
OPTIONS = {"max_length": 32, "batch_rows": 2, "validation_rows": 4, "test_rows": 4}


def movable(model: LoadedModel) -> list[str]:
    kinds = []
    for kind in KINDS:
        try:
            trainable(model, kind)
        except ConfigError:
            continue
        kinds.append(kind)
    return kinds


@pytest.mark.parametrize(("form", "variant"), CASES)
def test_every_kind_of_leaf_gets_the_values_of_the_file_back(
    form: str, variant: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = example(form, tmp_path / "base", variant)
    move = ",".join(movable(forq.load(path, device="cpu")))
    fresh, model = forq.load(path, device="cpu"), forq.load(path, device="cpu")
    layers = kernels(model)
    for leaf in trainable(model, move):
        x = leaf.read()
        low, high = getattr(leaf, "range", (None, None))
        leaf.write(x * 1.5 + 1 if low is None else torch.where(x < high, x + 1, low))
    restore_base(model)
    assert "read from the file again" in caplog.text and kernels(model) == layers and not model.lent
    for leaf, own in zip(trainable(model, move), trainable(fresh, move), strict=True):
        assert leaf.name == own.name and torch.equal(leaf.read(), own.read()), leaf.name


def test_nothing_is_said_where_nothing_moved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = forq.load(example("gptq", tmp_path / "base"), device="cpu")
    trainable(model, "scales,codes,norms")
    restore_base(model)
    assert not caplog.text


def tuned(model: LoadedModel | Path, text: Path, out: Path, **given: object) -> tuple[list[journal.Line], object]:
    """The lines and the scores of a small run."""
    run = forq.tune(model, "text", text, out=out, steps=2, recipe="qzo-slopes", settings={"task": OPTIONS}, **given)
    return journal.read(run.journal).lines, (run.result["validation"], run.result["test"])


def test_a_loop_over_seeds_gives_what_fresh_models_give(base: Path, text: Path, tmp_path: Path) -> None:
    model = forq.load(base)
    for seed in (0, 1):
        assert tuned(model, text, tmp_path / f"one-{seed}", seed=seed) == tuned(
            base, text, tmp_path / str(seed), seed=seed
        )
    assert forq.verify(tmp_path / "one-1", base).checkpoint


@pytest.mark.parametrize(("first", "then"), [("scales", "norms"), ("codes", "scales"), ("codes", "codes")])
def test_what_no_longer_moves_is_the_files_again(base: Path, text: Path, tmp_path: Path, first: str, then: str) -> None:
    model = forq.load(base)
    tuned(model, text, tmp_path / "first", move=first)
    assert tuned(model, text, tmp_path / "then", move=then) == tuned(base, text, tmp_path / "fresh", move=then)
    headers = [journal.read(tmp_path / name / "journal.jsonl").header for name in ("then", "fresh")]
    assert headers[0] == headers[1]


def test_steps_of_an_optimizer_are_undone_and_a_run_of_events_too(base: Path, text: Path, tmp_path: Path) -> None:
    expected = tuned(base, text, tmp_path / "fresh")
    model = forq.load(base)
    optimizer = forq.ZeroOrder(forq.space(model, "scales,norms"), lr=1e-4, eps=1e-2)
    leaf = optimizer.space.leaves[0]
    before = leaf.read()
    for _ in range(60):  # the first calls calibrate
        optimizer.step(lambda: sum(float(one.read().abs().sum()) for one in optimizer.space.leaves))
    assert not torch.equal(leaf.read(), before)
    assert tuned(model, text, tmp_path / "again") == expected
    done = forq.tune(base, "text", text, out=tmp_path / "given", steps=2, settings={"task": OPTIONS})
    begun = Run.begin(tmp_path / "by hand", done.config, model, done.task)
    for _ in begun.events():
        pass
    begun.finish()
    assert journal.read(begun.journal).lines == journal.read(done.journal).lines


def test_a_stopped_run_goes_on_in_the_model_that_it_left(base: Path, text: Path, tmp_path: Path) -> None:
    done = forq.tune(base, "text", text, out=tmp_path / "whole", steps=3, settings={"task": OPTIONS})
    model = forq.load(base)
    events = Run.begin(tmp_path / "run", done.config, model, done.task).events()
    while getattr(next(events), "kind", "") != "train":
        pass
    events.close()
    run = Run.resume(tmp_path / "run", done.config, model, done.task)
    for _ in run.events():
        pass
    run.finish()
    assert journal.read(run.journal).lines == journal.read(done.journal).lines


def test_a_model_with_the_adapters_of_a_run_is_refused_and_stays_as_it_is(
    base: Path, text: Path, tmp_path: Path
) -> None:
    model = forq.load(base)
    tuned(model, text, tmp_path / "first", move="scales,lora")
    scales = [leaf.read() for leaf in trainable(model, "scales")]
    for move in ("lora", "scales"):
        with pytest.raises(ConfigError, match="load the base"):
            tuned(model, text, tmp_path / "then", move=move)
    assert all(map(torch.equal, scales, [leaf.read() for leaf in trainable(model, "scales")]))
