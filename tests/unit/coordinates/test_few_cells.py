"""Moves of few cells are found once a step and shown one by one: the same numbers as drawn and shown for every code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forq.coordinates import held
from forq.coordinates.masters import SparseMaster, packed
from forq.layers import weight
from forq.layers.codes import codes_at, pack, put_codes_at, unpack
from forq.layers.linear import QuantLinear
from forq.models.load import load
from forq.models.space import space
from forq.noise.bits import Bits
from forq.noise.law import law
from forq.scalars.moves import Link, Move, Moved, Term, direction_seed
from tests.fixtures import aqlm, bnb4, gguf, gptq, hqq

IDS = torch.tensor([[1, 5, 9, 2, 40, 33]])
CASES: dict[str, Callable[[Path], Path]] = {
    "gptq": gptq.example,
    "act-order": lambda folder: gptq.example(folder, desc_act=True),
    "2-bit": lambda folder: gptq.example(folder, bits=2),
    "3-bit": lambda folder: gptq.example(folder, bits=3),
    "8-bit ragged": lambda folder: gptq.example(folder, bits=8, group_size=24),
    "nf4": bnb4.example,
    "gguf": gguf.example,
    "gguf, k-quants, tied": lambda folder: gguf.example(folder, **gguf.VARIANTS["k"]),
    "gguf, 5 bits, tied": lambda folder: gguf.example(folder, **gguf.VARIANTS["five"]),
    "hqq across rows": lambda folder: hqq.example(folder, axis=0),
    "aqlm": aqlm.example,
    "aqlm, pairs of rows": lambda folder: aqlm.example(folder, **aqlm.VARIANTS["out-2-bfloat16"]),
}


@pytest.mark.parametrize("share", ["1", "0.5", "0.015", "1e-3"])
def test_places_and_draws_are_the_same_noise(share: str) -> None:
    bits, made = Bits(direction_seed(3, 4), 99), law(f"sparse:{share}")
    drawn = np.empty(70_000, np.float32)
    made.draw(bits, 12, drawn)
    words = bits.uniform32(12, len(drawn))
    hit = (words >> np.uint32(1)) < round(float(share) * 2**31)
    assert np.array_equal(drawn, np.where(hit, (words & np.uint32(1)).astype(np.float32) * 2 - 1, 0))
    if made.sparse is not None:
        places, z = made.sparse(bits, 12, len(drawn))
        assert np.array_equal(places, np.flatnonzero(drawn)) and np.array_equal(z, drawn[places])
    assert (made.sparse is None) == (float(share) > 2.0**-6)


@pytest.mark.parametrize(("spread", "share"), [(1.0, 1.0), (3.0, 0.5), (1.0, 0.015), (16.0, 0.015), (20.0, 0.015)])
def test_a_rounded_direction_is_drawn_where_its_share_lies(spread: float, share: float) -> None:
    bits, made = Bits(direction_seed(3, 4), 99), law(f"rounded:2:{spread}:{share}")
    drawn, z, whole = np.empty(70_000, np.float32), np.empty(70_000, np.float32), np.empty(70_000, np.int32)
    for own, out in ((made, drawn), (made, whole), (law("gaussian"), z)):
        own.draw(bits, 12, out)
    up = bits.on(2).uniform32(12, len(drawn)) * 2.0**-32
    hit = bits.on(256).uniform32(12, len(drawn)) < share * 2**32
    assert np.array_equal(drawn, np.where(hit, np.floor(z * np.float32(spread) + up), 0)), "as if drawn everywhere"
    assert np.array_equal(whole, drawn)
    if made.sparse is not None:
        places, few = made.sparse(bits, 12, len(drawn))
        assert np.array_equal(places, np.flatnonzero(drawn)) and np.array_equal(few, drawn[places])
    assert (made.sparse is None) == (share > 2.0**-6 or spread > 16)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_single_codes_are_read_and_stored(bits: int) -> None:
    draw = torch.Generator().manual_seed(bits)
    whole = torch.randint(0, 1 << bits, (6, 24), dtype=torch.uint8, generator=draw)
    codes, places = pack(whole, bits), torch.randperm(144, generator=draw)[:60].sort().values
    assert torch.equal(codes_at(codes, bits, places), whole.view(-1)[places].int())
    other = torch.randint(0, 1 << bits, (60,), dtype=torch.int32, generator=draw)
    put_codes_at(codes, bits, places, other)
    whole.view(-1)[places] = other.to(torch.uint8)
    assert torch.equal(unpack(codes, bits), whole)


def seen(folder: Path, moves: list[Move], monkeypatch: pytest.MonkeyPatch, sparse: bool) -> tuple[Any, ...]:
    """What a model answers under probes and after steps, and what the steps say they did."""
    if not sparse:
        monkeypatch.setattr(packed, "is_sparse", lambda *args: False)
        monkeypatch.setattr(weight, "CODES_PER_PUT", 64)
    model: Any = load(folder, device="cpu", kernel="reference")
    held, answers, done = space(model, "codes", "cells"), [], []
    for move in moves:
        with held.displaced(move):
            layers = [layer for layer in model.modules() if isinstance(layer, QuantLinear)]
            assert any(layer.sparse_codes is not None for layer in layers) == sparse
            answers.append(model(IDS).logits)
        done.append(held.apply(move))
        answers.append(model(IDS).logits)
    return (
        answers,
        done,
        held.digest(),
        [layer.dequantise() for layer in model.modules() if isinstance(layer, QuantLinear)],
    )


@pytest.mark.parametrize("case", CASES)
def test_the_model_is_the_same(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CASES[case](tmp_path / "example")
    noises = zip((1.0, -1.0, 3.0, 0.7, -2.2), ("sparse:0.015",) * 4 + ("rounded:2:3:0.015",), strict=True)
    terms = [Term(direction_seed(5, step), weight, noise) for step, (weight, noise) in enumerate(noises)]
    moves = [Move((term,)) for term in terms] + [Move((terms[0],), Link("sign", size)) for size in (2.0, 0.4)]
    one = seen(folder, moves, monkeypatch, True)
    other = seen(folder, moves, monkeypatch, False)
    assert one[1:3] == other[1:3] and sum(moved.changed for moved in one[1]) > 20
    assert sum(moved.rounded_away for moved in one[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(one[3], other[3], strict=True))
    # The two ways add up in other orders.
    for a, b in zip(one[0], other[0], strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_directions_that_are_held_feed_back_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, weights = gptq.example(tmp_path / "example"), (-0.9, 0.4)
    steps = [
        tuple(Term(direction_seed(5, step, k), weight, "sparse:0.015") for k, weight in enumerate(weights))
        for step in range(5)
    ]

    def fed_back(most: float) -> tuple[str, list[Moved], set[int]]:
        """What a model holds after the steps, what they did, and the number of directions that each leaf holds."""
        monkeypatch.setattr(held, "MOST", most)
        codes = space(load(folder, device="cpu", kernel="reference"), "codes", "cells")
        done = [
            codes.apply(Move(terms, Link("feedback", 0.9, past=tuple(steps[max(0, i - 3) : i]))))
            for i, terms in enumerate(steps)
        ]
        holders = [master.directions for master in codes._masters if isinstance(master, SparseMaster)]
        return codes.digest(), done, {len(one.held) for one in holders}

    none, some, every = map(fed_back, (0.0, 0.3, 9.0))
    assert none[:2] == some[:2] == every[:2] and sum(moved.rounded_away for moved in none[1]) > 0
    assert (none[2], every[2]) == ({0}, {8}), "the last step's, and those of three before it"
