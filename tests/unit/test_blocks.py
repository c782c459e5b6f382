"""Moving the leaves of some blocks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from forq.errors import ConfigError
from forq.models.blocks import block_of, within
from forq.recipes.settings import settings


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
    ],
)
def test_the_leaves_of_the_blocks_are_left(blocks, numbers):
    chosen = within(LEAVES, blocks)
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


@pytest.mark.parametrize("blocks", ["", "a", "3,4", "-4", "middle-", "1 - 2"])
def test_other_texts_are_refused(blocks):
    from forq.recipes import recipe

    with pytest.raises(ConfigError, match="blocks"):
        settings({**recipe("qzo").settings.model_dump(), "blocks": blocks})
