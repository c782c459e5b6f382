"""What a loaded model holds in memory: freed buffers go back to the system."""

import subprocess
import sys

import pytest

_HELD = """
import torch
from forq.layers.heap import trim
def held():
    return 1024 * int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
kept, freed = [], []
before = held()
for _ in range(2000):  # small enough to come from the heap, not from maps of their own
    freed.append(torch.zeros(25_000)), kept.append(torch.zeros(100))
freed.clear()
holes = held() - before
trim()
print(holes, held() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_buffers_between_kept_ones_go_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", _HELD], check=True, capture_output=True, text=True)
    holes, left = map(int, done.stdout.split())
    assert left < 30e6
    assert left < 0.2 * holes or holes < 30e6  # an allocator that gives back by itself is as good
