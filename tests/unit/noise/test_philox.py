"""Words drawn by philox.c are those of NumPy's generator, in ranges and one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forq.noise import philox
from forq.noise.bits import Bits
from tests.reference.philox import philox as by_definition

WORD = st.integers(0, 2**64 - 1)
needs_compiler = pytest.mark.skipif(philox._library() is None, reason="a C compiler is needed")


@pytest.fixture(params=["compiled", "numpy"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        monkeypatch.setattr(philox, "_library", lambda: None)
    elif philox._library() is None:
        pytest.skip("a C compiler is needed")


@needs_compiler
@given(st.tuples(WORD, WORD), st.tuples(WORD, WORD), st.integers(0, 1000), st.integers(0, 70))
def test_compiled_words_are_numpys(key: tuple[int, int], direction: tuple[int, int], start: int, count: int) -> None:
    block, skip = divmod(start, philox.LANES)
    wanted = philox._generator.words(key, direction, block, skip + count)[skip:]
    assert np.array_equal(philox.words(key, direction, start, count), wanted)


@pytest.mark.usefixtures("either")
def test_words_at_places_are_those_of_the_range() -> None:
    bits = Bits(2**100 + 77, 2**63 + 5, 3)
    places = np.array([0, 1, 4, 5, 6, 7, 8, 1_000, 700_000, 2**41, 2**41 + 1])
    wanted = [by_definition((place // 4, 77, 3, 0), (2**36, 2**63 + 5))[place % 4] for place in places.tolist()]
    assert bits.words_at(places).tolist() == wanted
    assert bits.words_at(places[:0]).size == 0
    near = places[places < 2**40]
    assert np.array_equal(bits.uniform32_at(near), bits.uniform32(0, 700_001)[near])
