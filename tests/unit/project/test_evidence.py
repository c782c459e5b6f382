"""The honest table: what is run, how rates are chosen, and what the page says."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import linear

import forq
from forq.layers.linear import QuantLinear
from forq.tasks import Score
from tests.fixtures import gguf

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
sys.path += [str(EXPERIMENTS), str(EXPERIMENTS / "evidence")]
backprop, cells, page, rates, run, tables, twins = map(
    importlib.import_module, ("backprop", "cells", "page", "rates", "run", "tables", "twins")
)


def row(method: str, seed: int, loss: float, rate: str | None = None, problem: str = "tinystories") -> dict[str, Any]:
    scores = {split: {"before": {"loss": 6.5}, "after": {"loss": loss}} for split in ("validation", "test")}
    made = {"problem": problem, "method": method, "rate": rate, "seed": seed, "label": "small real", **scores}
    made |= {"forwards": 1000, "peak_mb": 500, "imports_mb": 441, "processor_seconds": 60.0, "seconds": 70.0}
    return made | {"course": [[0, 0, 6.5], [500, 30, 6.0], [1000, 60, loss]], "digest": f"{method}-{seed}"}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    target = tmp_path / "evidence.jsonl"
    monkeypatch.setattr(cells, "TARGET", target)

    def put(*rows: dict[str, Any]) -> None:
        with target.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in rows)

    return put


def test_rates_are_searched_with_the_first_seed_and_the_best_is_run_with_the_others(record: Any) -> None:
    only = ["tinystories:peqa"]
    known = cells.METHODS["peqa"].rates
    assert [cell[2:] for cell in cells.due(only)] == [(rate, 0) for rate in known]
    record(*(row("peqa", 0, 5.0 + 0.1 * abs(place - 2), rate) for place, rate in enumerate(known[:-1])))
    assert cells.best_rate("tinystories", "peqa", cells.recorded()) is None  # one is missing
    record(row("peqa", 0, 5.9, known[-1]))
    assert cells.best_rate("tinystories", "peqa", cells.recorded()) == known[2]
    assert [cell[2:] for cell in cells.due(only)] == [(known[2], seed) for seed in (1, 2, 3, 4)]


def tried(*losses: float, first: str = "1e-5") -> dict[str, Any]:
    """Rows by rate, ten times as large from one to the next; a loss above 6.5 gained nothing and ended there."""
    made = {}
    for place, loss in enumerate(losses):
        power = int(first[2:]) + place
        made[f"1e{power}"] = row("peqa", 0, min(loss, 6.5), f"1e{power}")
        made[f"1e{power}"]["course"][-1][2] = loss
    return made


def astray() -> dict[str, Any]:
    made: dict[str, Any] = row("peqa", 0, 6.4, "1e-5")
    made["course"][-1][2] = 14.0
    return made


RANGE = ("1e-5", "1e-4", "1e-3", "1e-2")


@pytest.mark.parametrize(
    ("known", "due"),
    [
        ({}, list(RANGE)),
        (tried(6.0, 5.0), ["1e-3", "1e-2"]),
        (tried(6.0, 5.0, 5.5, 6.2), []),  # a best with a neighbour on both sides
        (tried(6.0, 5.0, 4.5, 4.0), ["1e-1"]),
        (tried(6.0, 5.0, 4.5, 4.0, 3.9, 3.8, 3.7), []),  # three beyond the end, no more
        (tried(9.0), ["1e-6"]),  # nothing above what only did harm, but below it
        (tried(9.0, 9.5, 9.0, 9.0), ["1e-6"]),
        (tried(6.1, 9.0, first="1e-6"), ["1e-7"]),
        ({"1e-5": astray()}, ["1e-6"]),  # better by chance, and twice the loss
        (tried(6.3, 6.1, 9.0, first="1e-7"), []),
        (tried(9.0, 9.0, 9.0, 9.0, first="1e-8"), []),
        (tried(6.0, 5.0, 4.5) | {"1e-2": {"error": "losses are not finite"}}, []),
    ],
)
def test_a_best_rate_at_the_end_of_its_range_asks_for_one_beyond_it(known: dict[str, Any], due: list[str]) -> None:
    assert rates.open_rates(RANGE, known, "loss") == due


def test_equal_rates_are_the_smallest_and_a_failed_one_is_the_last() -> None:
    assert rates.best_of(tried(6.5, 5.0, 5.0), "loss") == "1e-4"
    assert rates.best_of({"1e-5": {"error": "no memory"}, **tried(6.5, first="1e-4")}, "loss") == "1e-4"


def test_a_search_follows_what_was_recorded_in_the_arithmetic_of_the_table(record: Any) -> None:
    only = ["tinystories:qzo-paper-tuned"]
    coming = cells.due(only)
    for rate in ("1e-5", "1e-6", "1e-7"):
        assert next(coming) == ("tinystories", "qzo-paper-tuned", rate, 0)
        loss = {"1e-5": 9.0, "1e-6": 6.0, "1e-7": 6.2}[rate]
        record(*({**one, "method": "qzo-paper-tuned"} for one in tried(loss, first=rate).values()))
    assert next(coming) == ("tinystories", "qzo-paper-tuned", "1e-6", 1)
    other = [{**one, "activations": "bfloat16", "method": "qzo-paper-tuned"} for one in tried(1.0).values()]
    assert cells.best_rate("tinystories", "qzo-paper-tuned", [*other, *cells.recorded()]) == "1e-6"


def test_a_row_in_another_arithmetic_is_another_cell(record: Any) -> None:
    all_seeds = [("smollm2", "qzo", None, seed) for seed in cells.PROBLEMS["smollm2"].seeds]
    record(row("qzo", 0, 0.5, problem="smollm2"))
    assert list(cells.due(["smollm2:qzo"])) == all_seeds
    record(row("qzo", 0, 0.5, problem="smollm2") | {"activations": "bfloat16"})
    assert list(cells.due(["smollm2:qzo"])) == all_seeds[1:]
    record(row("lora", 0, 0.5, "1e-4", "smollm2"))  # back-propagation computes in float everywhere
    assert ("smollm2", "lora", "1e-4", 0) not in set(cells.due(["smollm2:lora"]))


def test_a_row_on_record_is_not_run_again_and_a_failed_rate_is_never_the_best(record: Any) -> None:
    assert ("minilm", "qzo", None, 0) in set(cells.due([]))
    record(row("qzo", 0, 0.4, problem="minilm"))
    assert ("minilm", "qzo", None, 0) not in set(cells.due([]))
    known = cells.METHODS["peqa"].rates
    failed = {"problem": "minilm", "method": "peqa", "rate": known[0], "seed": 0, "error": "it diverged"}
    others = [row("peqa", 0, 0.5, rate, "minilm") for rate in known[1:]]
    for place, one in enumerate(others):
        for split in ("validation", "test"):
            one[split]["before"]["accuracy"], one[split]["after"]["accuracy"] = 0.5, 0.7 + 0.01 * (place == 1)
    record(failed, *others)
    assert cells.best_rate("minilm", "peqa", cells.recorded()) == known[2]  # accuracy is what is compared
    text = page.page([failed, *others])
    assert "71.0" in text and "3,000" in text  # the failed rate costs its 1,000 forward passes as well


def test_a_page_of_nothing_but_the_published_file(record: Any) -> None:
    only = {"problem": "tinystories", "method": "zero-shot", "rate": None, "seed": 0, "label": "small real"}
    only |= {"forwards": 0, "processor_seconds": 5.0, "test": {"after": {"loss": 6.5}}}
    failed = {"problem": "tinystories", "method": "qes", "rate": None, "seed": 0, "error": "no memory"}
    text = page.page([only, failed])
    assert "6.500" in text and "qes (failed: no memory)" in text and "<svg" not in text


def test_all_methods_have_as_many_scores(tmp_path: Path) -> None:
    class Files:
        def of(self, base: str, form: str) -> Path:
            return tmp_path

    words = run.words(cells.Cell("tinystories", "peqa", "1e-2", 0), Files(), tmp_path, tmp_path)
    steps, every = (int(words[words.index(name) + 1]) for name in ("--steps", "--eval-every"))
    assert 3 * steps <= 1000 and 20 <= steps / every < 22
    assert "--eval-every" not in run.words(cells.Cell("tinystories", "qzo", None, 0), Files(), tmp_path, tmp_path)


def test_the_best_is_by_the_main_metric_and_comes_back() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    best = backprop.Best([weight], Score(1.0, 10, {"accuracy": 0.5}, "accuracy"))
    for step, (loss, right) in enumerate(((2.0, 0.7), (0.5, 0.6))):
        weight.data.fill_(step + 1.0)
        best.offer(step + 1, 1.0, Score(loss, 10, {"accuracy": right}, "accuracy"))
    best.restore()
    assert weight.tolist() == [1.0, 1.0] and [place[0] for place in best.course] == [0, 3, 6]


@pytest.mark.parametrize("name", ["q4_1", "k", "five"])
def test_a_twin_begins_as_its_layer_and_follows_its_scales(name: str, tmp_path: Path) -> None:
    model = forq.load(gguf.example(tmp_path / "file", **gguf.VARIANTS[name]), device="cpu")
    layer = next(m for m in model.modules() if isinstance(m, QuantLinear) and not m.embeds)
    twin, x = twins.Scaled(layer), torch.randn(3, layer.in_features)
    assert torch.allclose(twin(x), linear(x, layer.dequantise(), layer.bias), atol=1e-5)
    for place, tensor in enumerate(t for s, t in layer.live.items() if s.group == "scales"):
        factors = torch.rand_like(tensor)
        twin.thetas[place].data.copy_(factors)
        tensor.mul_(1 + factors)
    assert torch.allclose(twin(x), linear(x, layer.dequantise(), layer.bias), atol=1e-4)
    twin(x).square().sum().backward()
    assert all(theta.grad is not None and theta.grad.abs().max() > 0 for theta in twin.thetas)


def test_a_twin_takes_scales_by_group_and_shows_every_step(tmp_path: Path) -> None:
    """Levels of 0 belong to no scale, and are in most groups of Q4_1."""
    model = forq.load(gguf.example(tmp_path / "file", **gguf.VARIANTS["q4_1"]), device="cpu")
    layer = next(m for m in model.modules() if isinstance(m, QuantLinear) and not m.embeds)
    twin, x = twins.Scaled(layer), torch.randn(3, layer.in_features)
    assert [levels.shape[-1] for levels in twin.levels] == [32, 32] and (twin.levels[0] == 0).any()
    with torch.no_grad():
        before = twin(x)
        assert twin.weight() is twin.weight()
        twin.thetas[0].add_(1.0)
        assert not torch.allclose(twin(x), before)


def test_gradients_pass_through_a_head_that_shares_the_table_of_the_embedding(tmp_path: Path) -> None:
    model = forq.load(gguf.example(tmp_path / "file", **gguf.VARIANTS["k"]), device="cpu")
    ids = torch.tensor([[1, 2, 3]])
    before = model(input_ids=ids).logits
    assert any(m.embeds for m in model.modules() if isinstance(m, QuantLinear))
    thetas = twins.swap(model, twins.Scaled)
    after = model(input_ids=ids).logits
    assert torch.allclose(after, before, atol=1e-4)
    after.square().sum().backward()
    assert all(theta.grad is not None and theta.grad.abs().max() > 0 for theta in thetas)


def test_the_page_sorts_by_test_and_names_the_search_and_what_is_missing(record: Any) -> None:
    known = cells.METHODS["peqa"].rates
    rows = [row("qzo", 0, 5.3), row("qzo", 1, 5.2), row("zoqo", 0, 5.9)]
    rows += [row("peqa", 0, 5.0 if place == 1 else 6.0, rate) for place, rate in enumerate(known)]
    record(*rows)
    text = page.page(rows)
    places = [text.index(f"</span>{method}</th>") for method in ("peqa", "qzo", "zoqo")]
    assert places == sorted(places)
    assert "5.250 ± 0.071" in text and "3,000" in text and "Not measured yet: zero-shot" in text
    assert "qzo-0, qzo-1" in text and ">59<" in text  # digests of both seeds; memory above the imports
    assert "minilm" not in text and "<svg" in text and "<script" not in text


def test_the_tables_on_record_are_those_of_the_rows_on_record() -> None:
    assert (cells.ROOT / "results" / "evidence.md").read_text() == tables.document(cells.recorded())


def test_a_search_that_goes_on_is_shown_as_such(record: Any) -> None:
    rows = [{**one, "method": "lora"} for one in tried(6.0, 5.0, first="1e-4").values()]
    rows += [row("qzo", seed, 5.3) for seed in range(5)]
    record(*rows)
    text = tables.document(rows)
    assert "| 1e-3, so far | 1 | 5.000 | 1,000 |" in text and "Fewer than 5 seeds so far: lora (1)." in text
    assert "rate 1e-3, the best so far: the search goes on" in page.page(rows)
    assert "| **`qzo`** | forq's default: nothing is set | – | 5 | 5.300 ± 0.000 | none |" in text


def test_a_curve_is_drawn_unless_it_diverges_from_its_own_start(record: Any) -> None:
    high = row("qzo", 1, 7.9)
    high["course"] = [[0, 0, 8.5], [1000, 60, 7.9]]  # another seed has other validation rows
    away = row("zoqo", 0, 7.0)
    away["course"] = [[0, 0, 6.5], [1000, 60, 7.2]]
    rows = [row("qzo", 0, 5.3), high, away]
    record(*rows)
    (section,) = [page.section(name, problem, rows) for name, problem in page.PROBLEMS.items() if name == "tinystories"]
    qzo = next(line["index"] for line in section["rows"] if line["label"] == "qzo")
    assert [[curve.index for curve in chart.curves] for chart in section["charts"]] == [[qzo], [qzo]]
    assert all(
        "not drawn, since their loss rises above its start: zoqo" in chart.caption for chart in section["charts"]
    )
