"""The honest table: what is run, how rates are chosen, and what the page says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "evidence"))
run = pytest.importorskip("run")
page = pytest.importorskip("page")


def row(method: str, seed: int, loss: float, rate: str | None = None, problem: str = "tinystories") -> dict[str, Any]:
    scores = {split: {"before": {"loss": 6.5}, "after": {"loss": loss}} for split in ("validation", "test")}
    made = {"problem": problem, "method": method, "rate": rate, "seed": seed, "label": "small real", **scores}
    made |= {"forwards": 1000, "peak_mb": 500, "imports_mb": 441, "processor_seconds": 60.0, "seconds": 70.0}
    return made | {"course": [[0, 0, 6.5], [500, 30, 6.0], [1000, 60, loss]], "digest": f"{method}-{seed}"}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    target = tmp_path / "evidence.jsonl"
    monkeypatch.setattr(run, "TARGET", target)

    def put(*rows: dict[str, Any]) -> None:
        with target.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in rows)

    return put


def test_rates_are_searched_with_the_first_seed_and_the_best_is_run_with_the_others(record: Any) -> None:
    only = ["tinystories:peqa"]
    rates = run.METHODS["peqa"].rates
    assert [cell[2:] for cell in run.jobs(only)] == [(rate, 0) for rate in rates]
    record(*(row("peqa", 0, 5.0 + 0.1 * abs(place - 2), rate) for place, rate in enumerate(rates[:-1])))
    assert run.best_rate("tinystories", "peqa", run.recorded()) is None  # one is missing
    record(row("peqa", 0, 5.9, rates[-1]))
    assert run.best_rate("tinystories", "peqa", run.recorded()) == rates[2]
    assert [cell[2:] for cell in run.jobs(only)] == [(rates[2], seed) for seed in (1, 2, 3, 4)]


def test_a_row_on_record_is_not_run_again_and_a_failed_rate_is_never_the_best(record: Any) -> None:
    assert ("minilm", "qzo", None, 0) in set(run.jobs([]))
    record(row("qzo", 0, 0.4, problem="minilm"))
    assert ("minilm", "qzo", None, 0) not in set(run.jobs([]))
    rates = run.METHODS["peqa"].rates
    failed = {"problem": "minilm", "method": "peqa", "rate": rates[0], "seed": 0, "error": "it diverged"}
    record(failed, *(row("peqa", 0, 0.5, rate, "minilm") for rate in rates[1:]))
    assert run.best_rate("minilm", "peqa", run.recorded()) == rates[1]


def test_the_page_sorts_by_test_and_names_the_search_and_what_is_missing(record: Any) -> None:
    rates = run.METHODS["peqa"].rates
    rows = [row("qzo", 0, 5.3), row("qzo", 1, 5.2), row("zoqo", 0, 5.9)]
    rows += [row("peqa", 0, 5.0 if place == 1 else 6.0, rate) for place, rate in enumerate(rates)]
    record(*rows)
    text = page.page(rows)
    places = [text.index(f"</span>{method}</th>") for method in ("peqa", "qzo", "zoqo")]
    assert places == sorted(places)
    assert "5.250 ± 0.071" in text and "3,000" in text and "Not measured yet: zero-shot" in text
    assert "qzo-0, qzo-1" in text and ">59<" in text  # digests of both seeds; memory above the imports
    assert "minilm" not in text and "<svg" in text and "<script" not in text
