"""The experiment on classify: its rows are the preset's, and the preset's words and prompt give the preset's tokens."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from forq.runs.config import task_config
from forq.tasks import cb, classify, sst2
from forq.tasks.kinds.preset import Limits
from tests import tiny_lm

SPLITS = ("train", "validation", "test")
LIMITS = Limits(40, 20, 30)
MODULES: dict[str, Any] = {"sst2": sst2, "cb": cb}


@pytest.fixture(scope="module")
def experiment() -> Any:
    folder = str(Path(__file__).parents[3] / "experiments")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("classify")
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize("name", MODULES)
def test_the_presets_words_give_the_presets_rows(experiment: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    MODULES[name].example(tmp_path / name)
    line = experiment.words(f"smollm2-{name}", "raw", 5, tmp_path, tmp_path / "work", LIMITS)
    data, sets = line[line.index("--data") + 1], [word for word in line if word.startswith("task.")]
    options: Any = dict(task_config("classify", data, sets).options)
    tokenizer = tiny_lm.tokenizer()
    ours: Any = classify.open(Path(data), tokenizer, seed=5, **options)
    sizes = dict(zip(("train_rows", "validation_rows", "test_rows"), LIMITS, strict=True))
    theirs: Any = MODULES[name].open(tmp_path / name, tokenizer, seed=5, **sizes)
    assert ours.words == theirs.words and ours.prior is ours.empty is None
    for split in SPLITS:
        assert sorted(ours.rows[split]) == sorted(theirs.rows[split])


def test_a_head_has_no_other_way_and_an_encoder_no_prior(experiment: Any) -> None:
    assert experiment.ways("head-cb") == ("head",) and "raw" not in experiment.ways("minilm-cb")
    assert set(experiment.ways("smollm2-sst2")) == {"preset", "words", "plain", "raw"}
