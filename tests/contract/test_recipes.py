"""Every recipe found by listing: makes a plan, says where it comes from, replays; settings refuse what cannot be."""

from dataclasses import dataclass

import pytest
import torch

from forq.cli.ls import baseline
from forq.coordinates.domain import DOMAINS
from forq.coordinates.space import Space
from forq.errors import ConfigError
from forq.plugins import registry
from forq.recipes import default_recipe, recipe
from forq.recipes import plan as methods
from forq.recipes.plan import plan, steps_within
from forq.recipes.settings import Settings
from forq.recipes.settings import settings as settings_of
from forq.runs import engine
from forq.runs.older_runs import with_settled
from forq.runs.oracles.curvature import WithCurvature
from forq.runs.oracles.local import Local
from forq.runs.oracles.tape import Tape
from forq.scalars.protocols import Method
from forq.tasks.objectives.predictions import of_squares
from tests.toys import Toy

NAMES = registry.names("recipes")


def test_something_is_listed():
    assert {"qzo", "qzo_paper", "mezo"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_listing_reads_from_the_file_what_the_recipe_says(name):
    assert baseline(name) is recipe(name).baseline


START = torch.linspace(0.1, 1.0, 64)


@dataclass
class Cells(Toy):
    """Integers from 0 to 15."""

    range = (0, 15)

    def packed(self, x):
        return x.to(torch.uint8)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grzo"])  # unit/scalars/test_grzo.py: it needs rows
def test_a_recipe_runs_and_replays(name):
    settings = recipe(name).settings

    def make():
        # Sparse directions on a lattice need coordinates to choose from, and cells to go.
        if settings.unit == "cells":
            leaves = [Cells("a", torch.arange(8192.0) % 16)]
        else:
            groups = settings.kinds if len(settings.kinds) > 1 else ("scales",)
            leaves = [Toy(group, START.clone(), group=group) for group in groups]
        return leaves, Space(leaves, DOMAINS[settings.unit] if len(leaves) == 1 else settings.domain)

    leaves, space = make()
    made = plan(settings, seed=5, steps=30)

    def loss(batch):
        return sum(float(((leaf.x - 0.8) ** 2).sum()) for leaf in leaves)

    def predictions(batch, at, uniform):
        errors = torch.cat([leaf.x - 0.8 for leaf in leaves]).view(8, -1)
        return of_squares(errors.square().mean(1), errors)

    oracle = Local(space, lambda step: step, loss)
    if settings.needs_curvature:
        oracle = WithCurvature(space, lambda step: step, predictions, seed=5)
    before = loss(0)
    lines = list(engine.run(space, oracle, made, steps=30))
    assert sum(line.kind == "train" for line in lines) == 30
    assert loss(0) < before
    _, again = make()
    assert list(engine.run(again, Tape(lines), made, steps=30)) == lines and again.digest() == space.digest()
    calibration = sum(line.forwards for line in lines if line.kind == "calibrate")
    trained = sum(line.forwards for line in lines if line.kind == "train")
    checks = 3 * settings.rule.checks * len(settings.probed)
    assert calibration <= max(0.05 * trained, 5 * len(settings.probed)) + checks
    assert steps_within(settings, forwards := calibration + trained) <= 30
    assert steps_within(settings, forwards + 200) > steps_within(settings, forwards)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is(name):
    found = recipe(name)
    assert found.summary and "arXiv" in found.source
    assert recipe(name.replace("_", "-")) is found


def test_qzo_paper_is_the_papers():
    method = plan(recipe("qzo-paper").settings, seed=0, steps=1)
    assert isinstance(method, Method)
    clip, sgd = method.rules
    assert (method.estimator.eps, clip.limit, sgd.lr) == ({"all": 1e-3}, {"all": 100.0}, {"all": 1e-7})
    assert method.estimator.noise == {"all": ("gaussian",)}


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'qzo'"):
        recipe("qzoo")


def test_a_recipe_of_the_lattice_keeps_its_own_noise_and_others_move_few_integers():
    assert {name: recipe(name).settings.probed[0].noise for name in ("zoqo", "zoqo-paper")} == {
        "zoqo": ("cells:auto",),
        "zoqo-paper": ("uniform_grid:1",),
    }
    mixed = recipe("qzo").settings.model_copy(update={"move": "scales,codes"})
    assert [group.noise for group in mixed.probed][1] == ("sparse:0.02",)


@pytest.mark.parametrize(
    ("name", "move", "walk"),
    [
        ("zoqo", "codes", 0.17),
        ("zoqo", "lora", 0.8),
        ("qzo-slopes", "lora", 0.8),
        ("qes", "codes", None),
        ("qzo-slopes", "scales", None),
    ],
)
def test_votes_walk_less_and_adapters_further(name, move, walk, monkeypatch):
    asked = []
    monkeypatch.setattr(methods, "calibrate", lambda **told: asked.append(told) or iter(()))
    tree = recipe(name).settings.model_dump() | {"move": move}
    plan(Settings.model_validate(tree), seed=0, steps=100)()
    assert [group.walk for group in asked[0]["groups"]] == [walk]


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        ({}, "qzo"),
        ({"move": "scales,norms"}, "qzo"),
        ({"changed": ["task.max_length", "rule.newton", "estimator.eps"]}, "qzo"),
        ({"reward": True}, "qzo-slopes"),
        ({"changed": ["rule.lr"]}, "qzo-slopes"),
        ({"changed": ["norms.clip"]}, "qzo-slopes"),
        ({"move": "scales, zeros"}, "qzo-slopes"),
        ({"move": "lora"}, "qzo-slopes"),
        ({"kind": "diffusion"}, "qzo-shared"),
        ({"kind": "masked"}, "qzo-shared"),
        ({"kind": "encoder"}, "qzo-shared"),
        ({"kind": "classifier"}, "qzo-shared"),
        ({"kind": "images"}, "qzo-shared"),
        ({"kind": "images", "reward": True}, "qzo-slopes"),
    ],
)
def test_the_default_is_newtons_where_it_was_compared(chosen, name):
    assert default_recipe(**{"kind": "causal", "reward": False, "changed": [], "move": ""} | chosen) == name


@pytest.mark.parametrize("tree", [{"rule": {"lr": 0.1}}, {"rule": {"clip": 1.0}}, {"groups": {"scales": {"lr": 0.1}}}])
def test_a_newton_step_has_no_rate(tree):
    base = recipe("qzo").settings.model_dump()
    for part, values in tree.items():
        base[part] |= values
    with pytest.raises(ConfigError, match="sets its own length"):
        settings_of(base)


@pytest.mark.parametrize(
    ("name", "changed", "says"),
    [
        ("zo-signsgd", {"move": "scales,norms", "groups": {"norms": {"lr": 1e-5}}}, "scales: 0.001, norms: 1e-05"),
        ("zo-signsgd", {"move": "scales,norms", "groups": {"scales": {"lr": 1e-5}}}, "by one length"),
        ("zo-signsgd", {"move": "scales,norms", "rule": {"lr": "auto"}}, "give rule.lr a number"),
        ("zoqo-paper", {"move": "codes,norms", "groups": {"norms": {"lr": 1e-4}}}, "by one length"),
        ("qzo-shared", {"move": "scales,norms", "groups": {"norms": {"newton": 0.1}}}, "norms.newton=0.1"),
        ("qzo-shared", {"groups": {"scales": {"newton": 0.1}}}, "set rule.newton alone"),
    ],
)
def test_a_number_of_a_kind_is_followed_or_refused(name, changed, says):
    tree = recipe(name).settings.model_dump()
    tree |= {key: tree[key] | value if isinstance(tree[key], dict) else value for key, value in changed.items()}
    with pytest.raises(ConfigError, match=says):
        plan(settings_of(tree), seed=0, steps=100)
    del tree["decisions"]  # an older journal, which has to replay
    assert plan(settings_of(tree), seed=0, steps=100)


def test_one_length_for_several_kinds_is_fine():
    tree = recipe("zo-signsgd").settings.model_dump()
    plan(settings_of(tree | {"groups": {"scales": {"lr": 1e-5}}}), seed=0, steps=100)
    plan(settings_of(tree | {"move": "scales,norms"}), seed=0, steps=100)
    plan(settings_of(recipe("zoqo").settings.model_dump() | {"move": "codes,norms"}), seed=0, steps=100)
    slopes = recipe("qzo-slopes").settings.model_dump()
    plan(settings_of(slopes | {"groups": {"scales": {"newton": 0.1}}}), seed=0, steps=100)


def test_a_run_goes_on_with_the_decisions_it_was_begun_with():
    today = recipe("qzo-paper").settings
    tree = today.model_dump(mode="json")
    assert today.decisions == settings_of(tree).decisions == 3
    del tree["decisions"]
    older = settings_of(tree)
    assert older.decisions == with_settled(today, older).decisions == 1
    for chosen, on in ((today, True), (older, False)):
        made = plan(chosen, seed=0, steps=9)
        assert isinstance(made, Method) and made.estimator.over_steps is on


@pytest.mark.parametrize(("law", "move", "cost"), [(3, "codes", methods.COST), (2, "codes", None), (3, "lora", None)])
def test_the_noise_of_whole_cells_has_a_cost_since_law_3_and_not_on_adapters(monkeypatch, law, move, cost):
    asked = []
    monkeypatch.setattr(methods, "calibrate", lambda *, groups, **_: asked.extend(groups))
    for name in ("zoqo", "quzo", "qes"):
        plan(recipe(name).settings.model_copy(update={"decisions": law, "move": move}), seed=0, steps=99)()
    assert [request.cost for request in asked] == [cost] * 3


def test_a_budget_of_forwards_is_kept_or_refused():
    for name in ("qzo", "qzo-slopes", "qzo-paper", "zoqo"):
        settings = recipe(name).settings
        made = registry.get("estimators", settings.estimator.name).make
        each = made(seed=0, eps=1.0, directions=settings.estimator.directions).forwards
        assert 0 <= 1000 - steps_within(settings, 1000) * each <= 0.06 * 1000 + 9 + each, "little of it is used"
    with pytest.raises(ConfigError, match=r"^forwards: one step takes 9"):
        steps_within(recipe("qzo").settings, 20)
