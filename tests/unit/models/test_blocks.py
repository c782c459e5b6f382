"""Moving the leaves of some blocks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from forq.coordinates.profile import Profile
from forq.errors import ConfigError
from forq.models.blocks import block_of, within
from forq.models.leaves import trainable
from forq.models.load import load
from forq.recipes import recipe
from forq.recipes.settings import settings
from forq.runs.older_runs import with_settled
from forq.runs.settled import DAMPED, settled_method
from tests.fixtures import example
from tests.unit.tasks.test_balanced import opened


@dataclass
class Named:
    """A leaf, as far as the choice of blocks looks."""

    name: str


LEAVES = [Named("model.embed_tokens.weight"), Named("lm_head.scales")]
LEAVES += [Named(f"model.layers.{block}.mlp.{kind}.scales") for block in range(12) for kind in ("up", "down")]


@pytest.mark.parametrize(
    ("blocks", "numbers"),
    [
        ("3", [3]),
        ("2-4", [2, 3, 4]),
        ("10-", [10, 11]),
        ("0-99", list(range(12))),
        ("middle", list(range(4, 10))),
        ("all", list(range(12))),
    ],
)
def test_the_leaves_of_the_blocks_are_left(blocks, numbers):
    chosen = [leaf for leaf in within(LEAVES, blocks) if block_of(leaf.name) is not None]
    assert [block_of(leaf.name) for leaf in chosen] == [number for number in numbers for _ in range(2)]


@pytest.mark.parametrize("count", range(1, 9))
def test_the_middle_of_a_small_network_has_a_block(count):
    assert within([Named(f"h.{block}.w") for block in range(count)], "middle")


def test_names_without_a_block():
    assert [block_of(name) for name in ("lm_head.scales", "transformer.h.7.attn.w", "conv1.w", "a.3.4.w")] == [
        None,
        7,
        None,
        3,
    ]


@pytest.mark.parametrize(("blocks", "has"), [("12-", "blocks 0-11"), ("5-4", "blocks 0-11")])
def test_blocks_without_a_leaf_are_refused(blocks, has):
    with pytest.raises(ConfigError, match=has):
        within(LEAVES, blocks)
    with pytest.raises(ConfigError, match="no numbered blocks"):
        within(LEAVES[:2], blocks)


def test_all_keeps_what_belongs_to_no_block():
    assert within(LEAVES, "all") == LEAVES


@pytest.mark.parametrize("blocks", ["", "a", "3,4", "-4", "middle-", "1 - 2"])
def test_other_texts_are_refused(blocks):
    with pytest.raises(ConfigError, match="blocks"):
        settings({**recipe("qzo").settings.model_dump(), "blocks": blocks})


@pytest.fixture
def classes(tmp_path):
    return opened(tmp_path, "sst2")


def leaves(blocks):
    return [Named(f"model.layers.{block}.up.scales") for block in range(blocks)]


def test_the_middle_of_a_deep_language_model_learns_classes(classes, tmp_path):
    method = recipe("qzo").settings

    def blocks(method, count, task=classes, profile=None):
        return settled_method(method, leaves(count), task, profile=profile)[0].blocks

    assert blocks(method, 12) == "middle"
    assert blocks(method, 11) == "all"
    assert blocks(method, 12, profile=Profile({})) == "all"
    assert blocks(method, 12, opened(tmp_path, "cb", "masked", "mask")) == "all"
    assert blocks(method.model_copy(update={"move": "scales,norms"}), 12) == "all"


@pytest.mark.parametrize("named", ["all", "3-5"])
def test_blocks_that_are_named_stay(classes, named):
    method = recipe("qzo").settings.model_copy(update={"blocks": named})
    assert settled_method(method, leaves(30), classes, profile=None)[0].blocks == named


def test_classes_share_directions_and_damp_their_steps(classes, tmp_path):
    encoder = opened(tmp_path, "cb", "masked", "mask")
    for name in ("qzo", "qzo-shared"):
        method, _ = settled_method(recipe(name).settings, leaves(3), classes, profile=None)
        assert not method.by_row and method.rule.damping == DAMPED
        assert settled_method(recipe(name).settings, leaves(3), encoder, profile=None)[0].rule.damping == "confirmed"
    assert settled_method(recipe("qzo").settings, leaves(3), classes, profile=None)[1]
    assert settled_method(recipe("qzo-shared").settings, leaves(3), classes, profile=None)[1] is None


@pytest.mark.parametrize("damping", [0.1, "confirmed"])
def test_a_damping_that_is_named_stays(classes, damping):
    rule = recipe("qzo-shared").settings.rule.model_copy(update={"damping": damping})
    method = recipe("qzo-shared").settings.model_copy(update={"rule": rule})
    assert settled_method(method, leaves(3), classes, profile=None)[0].rule.damping == damping


def test_a_fixed_damping_shares_directions_and_the_most_confirmed_leaves_them(classes, tmp_path):
    scales = trainable(load(example("gptq", tmp_path / "gptq"), device="cpu"))
    for damping, by_row in ((1.0, False), (10.0, False), ("confirmed", True)):
        rule = recipe("qzo").settings.rule.model_copy(update={"damping": damping})
        method = recipe("qzo").settings.model_copy(update={"rule": rule})
        found, why = settled_method(method, scales, classes, profile=None)
        assert found.by_row == by_row and (why is None) == by_row


def test_a_run_keeps_what_it_settled():
    method = recipe("qzo").settings
    begun = method.model_copy(update={"blocks": "middle", "rule": method.rule.model_copy(update={"damping": 1.0})})
    assert with_settled(method, begun) == begun
    assert with_settled(recipe("mezo").settings, begun) == recipe("mezo").settings


@pytest.mark.parametrize("damping", [0.0, -1.0, float("inf"), float("nan"), "none"])
def test_dampings_that_no_step_can_have_are_refused(damping):
    tree = recipe("qzo").settings.model_dump()
    with pytest.raises(ConfigError, match="damping"):
        settings({**tree, "rule": {**tree["rule"], "damping": damping}})


def test_methods_of_before_move_the_whole_model():
    assert {name: recipe(name).settings.blocks for name in ("qzo-slopes", "zoqo", "mezo")} == dict.fromkeys(
        ("qzo-slopes", "zoqo", "mezo"), "all"
    )
