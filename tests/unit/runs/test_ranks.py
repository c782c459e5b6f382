"""The parts of a team of ranks, each on its own: schedule, bytes, timings, rendezvous, heartbeat, replicas."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from forq.coordinates.arithmetic import checksum
from forq.errors import RunError
from forq.runs.ranks import packing, schedule
from forq.runs.ranks.heartbeat import Heartbeat
from forq.runs.ranks.rendezvous import Rendezvous, attempt
from forq.runs.ranks.timings import Timings
from forq.scalars.losses import Confirmed, Losses, Own
from forq.tokens import sharing


@pytest.mark.parametrize(("from_point", "pairs"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 40])
def test_every_probe_is_dealt_once(ranks, from_point, pairs):
    draw = random.Random(ranks)
    for probes in (2, 10, 32) if pairs else (1, 2, 9, 33):
        seconds = [draw.uniform(0.1, 3.0) for _ in range(ranks)]
        dealt = schedule.shares(probes, seconds, ranks // 2, from_point=from_point, pairs=pairs)
        assert sorted(place for share in dealt for place in share) == list(range(probes))
        assert not from_point or dealt[ranks // 2][0] == 0
        assert not pairs or all(len(share) % 2 == 0 for share in dealt)


def test_faster_ranks_get_more():
    dealt = schedule.shares(33, [1.0, 0.5, 2.0], 0, from_point=False)
    assert [len(share) for share in dealt] == [10, 19, 4]
    even = schedule.shares(33, [1.0] * 3, 0, from_point=False)
    seconds = [1.0, 0.5, 2.0]
    assert schedule.takes(dealt, seconds, from_point=False) < 0.5 * schedule.takes(even, seconds, from_point=False)


@pytest.mark.parametrize("probes", [1, 2, 3])
def test_more_ranks_than_probes_make_teams(probes):
    dealt = schedule.teams(probes, 8, 3)
    assert dealt[3] == (0, 0, len(range(0, 8, probes)))
    for place in range(probes):
        turns = sorted(turn for at, turn, _ in dealt if at == place)
        assert turns == list(range(len(turns))) and {of for at, _, of in dealt if at == place} == {len(turns)}


ANSWERS = (
    Losses(2.5, fisher=(), confirmed=(Confirmed(-1.0, 0.5, 2.0),) * 5),
    Losses(math.inf, fisher=(0.25,)),
    Losses(2.75, fisher=(0.125, -0.0)),
    Losses(1 / 3, own=Own((0.1, -0.2, math.nan), 7.0)),
    Losses(0.1 + 0.2, each=(0.1, 0.2), forwards=0),
)


def test_answers_travel_bit_for_bit():
    assert repr(packing.unpack(packing.pack(ANSWERS))) == repr(ANSWERS)
    assert packing.unpack(packing.pack(())) == ()


def test_a_step_takes_few_bytes():
    def wire(probes: int, rows: int) -> int:
        """What the second of two ranks sends and gets, heads and lengths included."""
        answers = [Losses(1.0, each=(1.0,) * rows or None) for _ in range(probes)]
        parts = packing.unpack_numbers(packing.pack_numbers([torch.ones(2 + rows).double().numpy()] * (probes // 2)))
        return 24 + len(packing.pack_numbers(parts)) + 8 + 12 + len(packing.pack(answers)) + 8

    assert wire(9, 0) < 1_000
    assert wire(33, 16) < 8_000


def test_a_rank_that_alone_has_no_finite_loss_is_named():
    timings, answers = Timings(3), {1: False}
    for _ in range(2):
        timings.require_finite([True, False, None], answers.__getitem__)
    timings.require_finite([False, False, False], answers.__getitem__)  # the step was bad for all
    for _ in range(4):
        timings.require_finite([True, False, None], answers.__getitem__)  # there the chief has none either
    answers[1] = True
    with pytest.raises(RunError, match="rank 1 answered no finite loss in 3 steps"):
        timings.require_finite([True, False, True], answers.__getitem__)


def test_probes_are_dealt_anew_only_where_it_pays():
    timings, before = Timings(2), [1.0, 1.0]
    timings.note([5.0, 4.0], [5, 4], [0, 0], 5.0)
    assert timings.redealt(before, 9, 0, from_point=False) is None  # the first forward pass warms up
    timings.note([5.0, 4.1], [5, 4], [0, 0], 5.0)
    assert timings.redealt(before, 9, 0, from_point=False) is None
    for _ in range(9):
        timings.note([5.0, 12.0], [5, 4], [0, 0], 12.0)
    assert timings.redealt(before, 9, 0, from_point=False) == [1.0, 3.0]
    assert [row["forwards"] for row in timings.rows([{}, {}])] == [55, 44]


def test_a_checksum_sees_every_bit():
    tensors = {
        "a": torch.randn(1000),
        "b": torch.randint(-8, 8, (50,), dtype=torch.int8),
        "c": torch.ones(3).bfloat16(),
    }
    before = checksum(tensors)
    for name, kind in (("a", torch.int32), ("b", torch.int8), ("c", torch.int16)):
        tensors[name].view(kind)[1:2].bitwise_xor_(1)
        assert checksum(tensors) != before
        tensors[name].view(kind)[1:2].bitwise_xor_(1)
    assert checksum(tensors) == before


def test_ranks_meet_again_on_a_store_that_holds_what_others_left():
    store, names = dist.HashStore(), []
    for turn in range(3):
        found: dict[int, str] = {}

        def meets(rank: int, found: dict[int, str] = found, turn: int = turn) -> None:
            time.sleep(random.Random(10 * turn + rank).uniform(0, 0.1))
            found[rank] = attempt(store, rank, 3, time.monotonic() + 20)

        ranks = [threading.Thread(target=meets, args=(rank,)) for rank in range(3)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        assert len(set(found.values())) == 1 and sorted(found) == [0, 1, 2]
        names += set(found.values())
    assert len(set(names)) == 3


def test_a_rank_that_hangs_in_a_forward_pass_is_silent_and_one_that_waits_is_not():
    store, said = dist.HashStore(), list[str]()
    chief = Heartbeat(Rendezvous(0, 2, store, store), 2.0, ends=said.append)
    other = Heartbeat(Rendezvous(1, 2, store, store), 2.0, ends=said.append)
    try:
        time.sleep(3.5)
        assert said == []
        with other.measuring():
            for _ in range(5):
                time.sleep(0.6)
                other.worked()
            assert said == []
            time.sleep(3.5)
        assert said and said[0].startswith("rank 1 gave no sign of life for")
    finally:
        chief.stop()
        other.stop()


def test_why_a_rank_ended_is_known():
    store = dist.HashStore()
    chief, other = (Heartbeat(Rendezvous(rank, 2, store, store), 9.0, ends=print) for rank in (0, 1))
    other.failed("expected a base, found none")
    assert chief.why() == "rank 1: expected a base, found none" and other.why(patience=0.0) is None
    chief.stop()
    other.stop()


def test_a_rendezvous_host_that_is_gone_is_no_reason():
    host = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    stores = [dist.TCPStore("127.0.0.1", host.port, is_master=False, timeout=timedelta(seconds=5)) for _ in range(2)]
    pulse = Heartbeat(Rendezvous(1, 2, *stores), 9.0, ends=print)
    pulse.stop()
    del host
    assert pulse.why() is None


def test_a_slow_batch_is_remembered():
    store = dist.HashStore()
    pulse = Heartbeat(Rendezvous(0, 1, store, store), None)
    pulse.slowest(20.0)
    pulse.slowest(1.0)
    pulse.stop()
    assert pulse.timeout == 200.0


def test_one_process_does_without_the_group():
    code = "import sys, forq.runs.tune, forq.runs.run; sys.exit('forq.runs.ranks.rendezvous' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shared_forward_passes_are_those_of_one_process():
    losses = [torch.randn(count) for count in (3, 1, 4, 2)]
    counts, cpu = [3, 1, 4, 2], torch.device("cpu")
    whole = sharing.measured(counts, cpu, lambda number: losses[number])
    kept: dict[int, torch.Tensor] = {}
    for turn in range(3):
        with sharing.some(turn, 3) as own:
            passes = sharing.measured(counts, cpu, lambda number: losses[number])
        assert [len(part) for part in passes] == counts and sorted(own) == list(range(turn, 4, 3))
        kept |= own
    with sharing.given(kept):
        again = sharing.measured(counts, cpu, lambda number: pytest.fail("nothing is left to measure"))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
