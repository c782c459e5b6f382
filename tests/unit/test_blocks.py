"""Moving the leaves of some blocks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from forq.errors import ConfigError
from forq.models.blocks import block_of, within
from forq.recipes import recipe
from forq.recipes.settings import settings
from forq.runs.blocks import settled
from tests.unit.test_balanced import opened


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
    assert settled(method, leaves(12), classes, profiled=False).blocks == "middle"
    assert settled(method, leaves(11), classes, profiled=False).blocks == "all"
    assert settled(method, leaves(12), classes, profiled=True).blocks == "all"
    assert settled(method, leaves(12), opened(tmp_path, "cb", "masked", "mask"), profiled=False).blocks == "all"
    norms = method.model_copy(update={"move": "scales,norms"})
    assert settled(norms, leaves(12), classes, profiled=False).blocks == "all"


@pytest.mark.parametrize("named", ["all", "3-5"])
def test_blocks_that_are_named_stay(classes, named):
    method = recipe("qzo").settings.model_copy(update={"blocks": named})
    assert settled(method, leaves(30), classes, profiled=False) is method


def test_methods_of_before_move_the_whole_model():
    assert {name: recipe(name).settings.blocks for name in ("qzo-slopes", "zoqo", "mezo")} == dict.fromkeys(
        ("qzo-slopes", "zoqo", "mezo"), "all"
    )
