"""Every rule found by listing: touches scalars only, keeps the directions, returns its state, is deterministic."""

import json
import math

import pytest

from forq.errors import ConfigError
from forq.plugins import registry
from forq.recipes.step import RuleSettings, StepSettings
from forq.scalars.chain import Choices, Inputs, patience, registered, rules
from forq.scalars.course import Course
from forq.scalars.losses import Confirmed
from forq.scalars.moves import Move, Term
from forq.scalars.protocols import Estimate
from forq.scalars.quadratic import DAMPINGS, Quadratic

NAMES = registry.names("rules")


def estimate(slopes):
    terms = tuple(Term(seed=k, weight=d / len(slopes)) for k, d in enumerate(slopes))
    fisher = tuple(tuple(1e-4 * (j == k) for k in range(j + 1)) for j in range(len(slopes)))
    kinds, radii = ("all rademacher",) * len(slopes), (1e-2,) * len(slopes)
    confirmed = (Confirmed(-0.5, 0.1, 1.0),) * len(DAMPINGS)
    model = Quadratic(tuple(1e-2 * d for d in slopes), fisher, kinds, radii, confirmed)
    return Estimate(Move(terms), tuple(slopes), loss=1.0, quadratic=model)


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


def test_the_settings_of_all_files_have_names_of_their_own():
    names_ = [name for registration in registered() for name in registration.settings.model_fields]
    assert len(names_) == len(set(names_)) and not set(names_) & set(StepSettings.model_fields)
    assert set(RuleSettings.model_fields) == {*names_, *StepSettings.model_fields}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_registers_a_rule_that_its_defaults_leave_out(name):
    registration = registry.get("rules", name).registration
    assert registration in registered()
    defaults = registration.settings()
    for step in ("slope", "sign", "vote", "newton"):
        inputs = Inputs(step, ("all",), {}, {"all": 0.1}, Course(0, 1), 0.5, False)
        made = registration.made(defaults, inputs)
        assert (made is not None) == (step in registration.steps), "a rule is chosen by a setting or by rule.step"
        registration.require(defaults, Choices("one_sided", 1, step))
    for field in registration.settings.model_fields:
        assert f"{field}:" in registration.settings.__doc__ or f"{field}," in registration.settings.__doc__


def test_the_chain_has_an_order_and_one_step():
    chosen = RuleSettings(lr=0.1, clip=1.0, shape="rank", feedback=2, audit=3)
    inputs = Inputs("slope", ("all",), {"all": 1.0}, {"all": 0.1}, Course(0, 9, "late"), 0.5, False)
    chain = [type(rule).__name__ for rule in rules(chosen, inputs)]
    assert chain == ["Clip", "Audit", "Shape", "SGD", "Decay", "Feedback"]
    assert patience(chosen) == 3 and patience(RuleSettings(lr=0.1)) is None
    assert [r.steps for r in registered() if r.steps] == [("newton",), ("slope",), ("sign", "vote")]


def test_settings_are_flat_strict_and_in_the_order_of_the_journals():
    plain = {"lr": "auto", "clip": "off", "decay": "none", "step": "slope", "shape": "off", "audit": 0}
    plain |= {"feedback": 0, "feedback_decay": 0.9, "edge": "cut", "newton": 0.5, "checks": 0}
    assert list(RuleSettings(lr="auto").model_dump().items())[: len(plain)] == list(plain.items())
    assert RuleSettings.model_validate({"lr": "auto"}) == RuleSettings.model_validate(plain), "an older header loads"
    for wrong in ({"audits": 1}, {"audit": -1}, {"shape": "best"}, {"step": "jump"}, {"feedback": 2000}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RuleSettings(lr="auto", **wrong)
    with pytest.raises(ValueError, match="frozen"):
        RuleSettings(lr="auto").audit = 3


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
