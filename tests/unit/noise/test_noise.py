"""The bits are Philox's, and a draw depends on seed, leaf and position alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forq.errors import ConfigError
from forq.noise.bits import Bits, leaf_id
from forq.noise.law import law
from forq.plugins import registry
from forq.scalars.moves import direction_seed
from tests.reference.philox import philox

SPECS = (
    "rademacher",
    "gaussian",
    "uniform_grid:3",
    "sign:uniform_grid:3",
    "rounded:1",
    "sparse:0.25",
    "cells:0.5",
    "rows:gaussian",
    "layers:gaussian",
)
"""Every law there is, with an argument that it takes."""


def test_every_law_is_tried():
    assert {spec.partition(":")[0] for spec in SPECS} == set(registry.names("noises"))


def test_reference_matches_published_vectors():
    assert philox((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )
    ones = (1 << 64) - 1
    assert philox((ones,) * 4, (ones,) * 2)[0] == 0x87B092C3013FE90B


@given(
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 300),
    st.integers(0, 70),
    st.integers(1, 40),
)
def test_words_are_philox(seed, leaf, stream, start, count):
    words = Bits(seed, leaf, stream).words(start, count)
    low, high = seed & (2**64 - 1), seed >> 64
    expected = [philox(((start + i) // 4, low, stream, 0), (high, leaf))[(start + i) % 4] for i in range(count)]
    assert words.tolist() == expected


@settings(max_examples=30)
@given(st.sampled_from(SPECS), st.integers(0, 500), st.integers(1, 500))
def test_any_chunking_draws_the_same(spec, start, count):
    bits = Bits(direction_seed(7, 3), leaf_id("a.scales"), rows=(2, 500))
    whole, part = np.empty(1000, np.float32), np.empty(count, np.float32)
    law(spec).draw(bits, 0, whole)
    law(spec).draw(bits, start, part)
    np.testing.assert_array_equal(part, whole[start : start + count])


@pytest.mark.parametrize("spec", SPECS)
def test_leaves_seeds_and_streams_differ(spec):
    def draw(bits):
        out = np.empty(64, np.float32)
        law(spec).draw(bits, 0, out)
        return out.tobytes()

    base = Bits(direction_seed(0, 0, 0), leaf_id("a"))
    others = [
        Bits(direction_seed(0, 0, 0), leaf_id("b")),
        Bits(direction_seed(0, 0, 1), leaf_id("a")),
        Bits(direction_seed(0, 1, 0), leaf_id("a")),
        Bits(direction_seed(1, 0, 0), leaf_id("a")),
    ]
    assert len({draw(bits) for bits in (base, *others)}) == 5


@pytest.mark.parametrize(
    ("spec", "mean", "variance"),
    [
        ("rademacher", 0, 1),
        ("gaussian", 0, 1),
        ("uniform_grid:3", 0, 4),
        ("sign:uniform_grid:3", 0, 6 / 7),
        ("rounded:2", 0, 1 + 1 / 6),  # rounding at random adds E[f(1−f)] = 1/6 for a smooth density
    ],
)
def test_moments(spec, mean, variance):
    out = np.empty(200_000, np.float32)
    law(spec).draw(Bits(5, 9), 0, out)
    assert out.mean() == pytest.approx(mean, abs=0.015)
    assert out.var() == pytest.approx(variance, rel=0.02)


def test_two_roundings_are_of_one_direction():
    one, two, z = (np.empty(50_000, np.float32) for _ in range(3))
    for spec, out in (("rounded:1", one), ("rounded:2", two), ("gaussian", z)):
        law(spec).draw(Bits(5, 9), 0, out)
    assert np.abs(one - z).max() < 1 and np.abs(two - z).max() < 1
    residuals = np.corrcoef(one - z, two - z)[0, 1]
    assert abs(residuals) < 0.02, "the two roundings must be independent given the direction"


@pytest.mark.parametrize(
    "spec", ["rademacher:2", "uniform_grid", "uniform_grid:0", "uniform_grid:x", "sign", "rounded"]
)
def test_bad_arguments_are_refused(spec):
    with pytest.raises(ConfigError, match=spec.split(":")[0]):
        law(spec)


def test_unknown_law_names_the_nearest():
    with pytest.raises(ConfigError, match="rademacher"):
        law("rademacer")
    assert "rademacher" in registry.names("noises")


@pytest.mark.parametrize("field", [(-1, 0, 0), (2**64, 0, 0), (0, 2**40, 0), (0, 0, 2**24)])
def test_seed_fields_never_collide(field):
    with pytest.raises(ConfigError):
        direction_seed(*field)
