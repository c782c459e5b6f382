"""The experiment on a sentence encoder: what is run next, which rate is best, and what the table says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def minilm() -> Any:
    folder = str(Path(__file__).parents[3] / "experiments")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("minilm")
    finally:
        sys.path.remove(folder)


def row(method: str, seed: int, accuracy: float, loss: float = 0.5) -> dict[str, Any]:
    score = {when: {"accuracy": accuracy, "loss": loss} for when in ("before", "after")}
    return {"method": method, "seed": seed, "forwards": 9, "seconds": 1.0, "validation": score, "test": score}


def test_the_best_rate_waits_for_all_and_is_chosen_on_validation(minilm: ModuleType) -> None:
    rates = minilm.RATES["qzo-paper"]
    rows = [row(f"qzo-paper@{lr}", 0, 0.7 + 0.1 * (lr == rates[1])) for lr in rates[:-1]]
    assert minilm.best_rate("qzo-paper", rows) is None
    assert not any(method.startswith("qzo-paper@") and seed for method, seed in minilm.jobs(rows))
    with pytest.raises(SystemExit, match="run every rate of qzo-paper on seed 0 first"):
        minilm.selected(["qzo-paper@best:1"], rows)
    rows += [row(f"qzo-paper@{rates[-1]}", 0, 0.8, loss=0.4), row(f"qzo-paper@{rates[0]}", 1, 0.99)]
    assert minilm.best_rate("qzo-paper", rows) == rates[-1]
    assert minilm.selected(["qzo-paper@best:1", "qzo:0"], rows) == [(f"qzo-paper@{rates[-1]}", 1), ("qzo", 0)]
    assert (f"qzo-paper@{rates[-1]}", 2) in minilm.jobs(rows)
    rows[-2] = {"method": f"qzo-paper@{rates[-1]}", "seed": 0, "error": "not finite"}
    assert minilm.best_rate("qzo-paper", rows) == rates[1]


@pytest.mark.parametrize("wrong", ["qzo", "qzo:x", "sgd:0", "qzo@1:0"])
def test_a_selection_that_means_nothing_is_refused(minilm: ModuleType, wrong: str) -> None:
    with pytest.raises(SystemExit, match="expected method:seed"):
        minilm.selected([wrong], [])


def test_forward_only_methods_spend_the_same(minilm: ModuleType) -> None:
    places = (Path("q"), Path("f"))
    said = {name: minilm.words(name, None, 0, *places) for name in minilm.UNTOUCHED}
    steps = {name: int(words[words.index("--steps") + 1]) for name, words in said.items()}
    assert steps["qzo-paper"] == steps["mezo"] == minilm.FORWARDS // 2
    # At least one and at most three trials of 19 forwards, all within the budget of a twentieth.
    assert 0.9 * minilm.FORWARDS < 9 * steps["qzo"] <= 0.95 * minilm.FORWARDS
    assert said["mezo"][3] == "f" and said["qzo"][3] == "q"


def test_a_table_says_how_many_seeds_failed(minilm: ModuleType) -> None:
    rows = [row("qzo", 0, 0.75), row("qzo", 1, 0.77), {"method": "mezo", "seed": 0, "error": "no"}]
    lines = minilm.table(rows).splitlines()
    assert lines[2].startswith("| qzo | 2 | 9 | 76.000 ± 1.414 |") and lines[3].startswith("| mezo | 0 of 1 | | no |")
