"""Every rule found by listing: touches scalars only, keeps the directions, returns its state, is deterministic."""

import json
import math

import pytest

from forq.errors import ConfigError
from forq.plugins import registry
from forq.scalars.moves import Move, Term
from forq.scalars.protocols import Estimate

NAMES = registry.names("rules")


def estimate(slopes):
    terms = tuple(Term(seed=k, weight=d / len(slopes)) for k, d in enumerate(slopes))
    return Estimate(Move(terms), tuple(slopes), loss=1.0)


def test_something_is_listed():
    assert {"clip", "sgd"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_directions_stay_and_state_is_plain(name):
    rule = registry.get("rules", name).example()
    state = rule.init()
    for step, slopes in enumerate([(3.0, -0.2), (0.1, 4.0), (0.0, -5.0)]):
        before = json.dumps(state)
        one, after = rule.update(step, estimate(slopes), state)
        two, again = rule.update(step, estimate(slopes), state)
        assert (one, after) == (two, again) and json.dumps(state) == before, "a rule changed the state it was given"
        assert [t.seed for t in one.move.terms] == [0, 1]
        assert all(math.isfinite(t.weight) for t in one.move.terms)
        state = json.loads(json.dumps(after))


def test_clip_bounds_both_sides_and_each_direction_alone():
    clip = registry.get("rules", "clip").Clip(limit=1.0)
    done, _ = clip.update(0, estimate((5.0, -7.0, 0.5, 0.0)), {})
    assert done.slopes == (1.0, -1.0, 0.5, 0.0)
    assert [t.weight for t in done.move.terms] == [0.25, -0.25, 0.125, 0.0]


def test_sgd_goes_against_the_estimate():
    sgd = registry.get("rules", "sgd").SGD(lr=0.1)
    done, _ = sgd.update(0, estimate((4.0,)), {})
    assert [t.weight for t in done.move.terms] == [-0.4]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match=r"rule\.clip"):
        registry.get("rules", "clip").Clip(bad)
    with pytest.raises(ConfigError, match=r"rule\.lr"):
        registry.get("rules", "sgd").SGD(bad)


def test_clip_and_step_of_each_group_are_its_own():
    terms = (Term(0, 4.0, group="scales"), Term(1, 4.0, group="norms"))
    both = Estimate(Move(terms), (4.0, 4.0), loss=1.0)
    clipped, _ = registry.get("rules", "clip").Clip({"norms": 1.0}).update(0, both, {})
    assert clipped.slopes == (4.0, 1.0), "a group without a limit keeps its slopes"
    done, _ = registry.get("rules", "sgd").SGD({"scales": 0.5, "norms": 0.1}).update(0, clipped, {})
    assert [t.weight for t in done.move.terms] == [-2.0, -0.1]
