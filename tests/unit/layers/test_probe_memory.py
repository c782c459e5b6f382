"""A probe of codes takes no copy of a matrix, and computes what a layer computes that holds those codes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from forq.checkpoints.containers.gguf.kinds import BY_NAME
from forq.coordinates.leaf import SparseCodes
from forq.formats.codecs.gguf_blocks import Blocks
from forq.layers import probe
from forq.layers.kernels.native import build
from forq.layers.layer import FiledCodes, Live, Parts, as_stored
from forq.layers.leaves import CodeLeaf
from forq.layers.linear import QuantLinear, Unpacked
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight

ROWS, COLUMNS = 5000, 512
KERNELS: list[Unpacked] = ["native", "reference"]


def layer(kind: str, kernel: Unpacked) -> QuantLinear:
    """A head of random codes, in blocks of a type or (``plain``) of 8 bits."""
    draw = torch.Generator().manual_seed(3)
    drawn = partial(torch.randint, 0, 256, dtype=torch.uint8, generator=draw)
    if kind == "plain":
        weight: QuantWeight | Blocks = QuantWeight(
            drawn((ROWS, COLUMNS)), torch.full((COLUMNS // 32, ROWS), 128, dtype=torch.int16), 8, 32
        )
        live, arrange = [torch.rand(ROWS, COLUMNS // 32, generator=draw)], Tensor.t
    else:
        own = BY_NAME[kind]
        count = COLUMNS // own.size
        sizes = {field.name: field.count for field in own.fields}
        factors = drawn((ROWS, count, sizes["scales"])) if "scales" in sizes else None
        weight, arrange = Blocks(own, drawn((ROWS, count, sizes["qs"])), factors), as_stored
        live = [torch.rand(ROWS, count, generator=draw) for _ in own.live]
    specs = tuple(Live(f"live{place}", torch.float16) for place in range(len(live)))
    made = QuantLinear(Parts(weight, tuple(live), None, arrange), specs, Scratch())
    made.filed_codes = FiledCodes("codes", torch.uint8, (ROWS, COLUMNS), weight.bits, lambda codes: codes)
    made.unpacked = kernel
    return made


def lowered(leaf: CodeLeaf, out: Tensor, start: int = 0) -> None:
    """An overlay: every code but one less, where that is possible."""
    out.copy_(leaf.take(start, start + out.numel()).sub_(1).clamp_(min=0).view(out.shape))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The most bytes that any layer takes from the shared buffers, by role."""
    found: dict[str, int] = {}
    take = Scratch.take

    def watched(self: Scratch, role: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        taken = take(self, role, shape, dtype, device)
        found[role] = max(found.get(role, 0), taken.nbytes)
        return taken

    monkeypatch.setattr(Scratch, "take", watched)
    return found


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_0", "Q6_K", "plain"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shown", ["all", "few"])
def test_a_probe_takes_less_than_the_codes_and_gives_their_numbers(
    shown: str, kernel: Unpacked, kind: str, asked: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "native" and (why := build.missing()) is not None:
        pytest.skip(why)
    monkeypatch.setattr(probe, "_CODES", {"cpu": 1 << 17})
    monkeypatch.setattr(probe, "_CODES_HELD", 1 << 19)
    one = layer(kind, kernel)
    leaf = CodeLeaf(one, one.filed_codes)
    wanted, x = torch.tensor([0, 7, 8, 700, ROWS - 1]), torch.randn(5, COLUMNS)
    places = torch.arange(0, ROWS * COLUMNS, 997)
    if shown == "all":
        new = torch.empty(ROWS, COLUMNS)
        lowered(leaf, new)
        leaf.overlay = partial(lowered, leaf)
    else:
        leaf.sparse = SparseCodes(places, leaf.at(places) ^ 1)
        new = leaf.read()
        new.view(-1)[places] = leaf.sparse.x.float()
    before = leaf.storage.clone()
    asked.clear()
    y, rows = one(x), one.rows(wanted)
    assert torch.equal(leaf.storage, before)
    dense = asked.pop("dense")
    assert max(asked.values(), default=0) < before.nbytes / 2
    if kernel == "native" or kind != "plain" or shown == "few":  # the reference kernel shows a whole matrix of codes
        assert dense < 4 * ROWS * COLUMNS / 4
    leaf.overlay = leaf.sparse = None
    leaf.write(new)
    assert torch.equal(rows, one.rows(wanted))
    assert torch.equal(y, one(x))


def test_a_lookup_computes_the_probe_of_few_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_CODES", {"cpu": 4 * COLUMNS})
    one = layer("plain", "reference")
    leaf, written = CodeLeaf(one, one.filed_codes), []

    def show(out: Tensor, start: int = 0) -> None:
        written.append((start // COLUMNS, len(out)))
        lowered(leaf, out, start)

    leaf.overlay = show
    one.rows(torch.tensor([1, 3, 4, ROWS - 1]))
    assert written == [(0, 4), (4, 4), (ROWS - 4, 4)]
