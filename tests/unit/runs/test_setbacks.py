"""When a score is clearly worse, and what a run says of it."""

import math

import pytest

from forq.cli._setbacks import Setbacks
from forq.runs.metrics import Scored
from forq.runs.setbacks import clearly_worse
from forq.tasks import Score


@pytest.mark.parametrize(
    ("start", "score", "worse"),
    [
        (Score(3.27, 32), Score(3.30, 32), False),
        (Score(3.27, 32), Score(5.72, 32), True),
        (Score(3.27, 32), Score(2.0, 32), False),
        (Score(3.27, 32), Score(math.nan, 32), True),
        (Score(math.nan, 32), Score(math.nan, 32), False),
        (Score(0.5, 100, {"accuracy": 0.70}, "accuracy"), Score(0.9, 100, {"accuracy": 0.60}, "accuracy"), False),
        (Score(0.5, 1000, {"accuracy": 0.70}, "accuracy"), Score(0.5, 1000, {"accuracy": 0.60}, "accuracy"), True),
        (Score(0.5, 10, {"accuracy": 1.0}, "accuracy"), Score(0.4, 10, {"accuracy": 1.0}, "accuracy"), False),
        (Score(0.5, 10, {"reward": 2.0}, "reward"), Score(0.5, 10, {"reward": 1.9}, "reward"), True),
        (Score(0.5, 10, {"reward": -2.0}, "reward"), Score(0.5, 10, {"reward": -2.01}, "reward"), False),
    ],
)
def test_clearly_worse_is_more_than_the_scatter_of_scores(start, score, worse):
    assert clearly_worse(score, start) is worse


def scored(trained, loss, worse):
    return Scored(trained, 9 * trained, Score(loss, 32), best=trained == 0, worse=worse)


def test_a_setback_is_said_once_and_one_that_lasts_names_shorter_steps():
    seen = Setbacks(rates={"lr": 0.008, "norms.lr": 0.2})
    assert seen.sentences(scored(0, 3.27, False)) == []
    (first,) = seen.sentences(scored(1, 3.9, True))
    assert "after step 1" in first and "loss 3.2700 → 3.9000" in first
    assert seen.sentences(scored(2, 4.0, True)) == []
    (lasting,) = seen.sentences(scored(3, 4.1, True))
    assert "--set rule.lr=0.002" in lasting and "--set norms.lr=0.05" in lasting and "batch_rows" in lasting
    assert seen.sentences(scored(4, 4.1, True)) == []
    assert seen.sentences(scored(5, 3.2, False)) == []
    assert len(seen.sentences(scored(6, 4.1, True))) == 1, "a second setback is said again"


def test_a_score_from_before_setbacks_were_noticed_is_none():
    body = {
        "trained": 1,
        "forwards": 9,
        "score": {"loss": 9.0, "rows": 1, "metrics": {}, "main": "loss"},
        "best": False,
    }
    assert Scored.of(body).worse is False
