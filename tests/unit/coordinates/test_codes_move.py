"""The integer codes themselves move: packed, by whole cells, without a floating-point number of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.coordinates import directions
from forq.coordinates.leaf import PackedLeaf
from forq.coordinates.masters import PackedMaster, SparseMaster
from forq.layers.codes import unpack
from forq.layers.linear import QuantLinear
from forq.models.load import load
from forq.models.space import space
from forq.noise.bits import Bits, leaf_id
from forq.noise.law import law
from forq.runs import engine
from forq.runs.oracles.local import Local
from forq.scalars.estimators.two_point import TwoPoint
from forq.scalars.losses import from_means
from forq.scalars.moves import Link, Move, Term
from forq.scalars.protocols import Method
from forq.scalars.rules.sign_step import SignStep
from tests.fixtures import gptq

IDS = torch.tensor([[3, 7, 5, 1, 2, 9]])
SHAPES = ["4-bit", *gptq.VARIANTS]


def example(folder, shape="4-bit"):
    return gptq.example(folder, **gptq.VARIANTS.get(shape, {}))


def layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}


def codes(layer):
    return unpack(layer.weight.codes, layer.bits).int()


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits.clone()


def drawn(move, leaf):
    """u as the law of its noise draws it, in floats: an independent road to the same numbers."""
    (term,) = move.terms
    out = np.empty(leaf.shape[0] * leaf.shape[1], np.float32)
    bits = Bits(term.seed, leaf_id(leaf.name), rows=(leaf.shape[1], leaf.shape[0]))
    law(term.noise).draw(bits, 0, out)
    return torch.from_numpy(out).view(leaf.shape).int()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_probe_shows_other_codes_and_leaves_the_packed_ones_alone(tmp_path, shape):
    model = load(example(tmp_path, shape), "cpu")
    moves = space(model, "codes", "cells")
    before = logits(model)
    held = {name: layer.weight.codes.clone() for name, layer in layers(model).items()}
    probe = Move((Term(77, 1.0, "uniform_grid:2"),))
    with moves.displaced(probe):
        away = logits(model)
        assert all(torch.equal(layer.weight.codes, held[name]) for name, layer in layers(model).items())
    assert not torch.equal(away, before) and torch.equal(logits(model), before)
    # The same codes stored, and computed by the kernel that knows nothing of probes.
    other = load(tmp_path, "cpu", kernel="reference")
    leaves = {leaf.name: leaf for leaf in moves.leaves}
    for layer in layers(other).values():
        leaf = leaves[layer.filed_codes.name]
        top = (1 << layer.bits) - 1
        wanted = (codes(layer) + drawn(probe, leaf)).clamp(0, top)
        twin = next(found for found in space(other, "codes", "cells").leaves if found.name == leaf.name)
        twin.write(wanted)
        assert torch.equal(codes(layer), wanted)
    assert (logits(other) - away).abs().max() <= 1e-5 * away.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_zoqos_step_is_that_of_the_paper_in_integers(tmp_path, shape):
    model = load(example(tmp_path, shape), "cpu")
    moves = space(model, "codes", "cells")
    before = {name: codes(layer) for name, layer in layers(model).items()}
    estimate = Move((Term(5, -0.3, "uniform_grid:3"),))
    done, _ = SignStep(2.7, vote=True).update(0, engine.Estimate(estimate, (-0.3,), 1.0), {})
    assert done.move == Move((Term(5, 1.0, "uniform_grid:3"),), Link("sign", 2.0))
    moved = moves.apply(done.move)
    cut = changed = 0
    leaves = {leaf.name: leaf for leaf in moves.leaves}
    for name, layer in layers(model).items():
        free = before[name] + 2 * drawn(estimate, leaves[layer.filed_codes.name]).sign()
        wanted = free.clamp(0, (1 << layer.bits) - 1)
        assert torch.equal(codes(layer), wanted)
        cut += int((wanted != free).sum())
        changed += int((wanted != before[name]).sum())
    assert (moved.changed, moved.cut) == (changed, cut) and cut > 0


@pytest.mark.parametrize("noise", ["uniform_grid:1", "sparse:0.015"])
def test_no_trained_parameter_noise_or_update_is_floating_point(tmp_path, monkeypatch, noise):
    """And no copy of the weights: what a space holds of the codes is the layer's own packed storage."""
    model = load(example(tmp_path), "cpu")
    moves = space(model, "codes", "cells")
    seen = []
    step, sparse_step, plain = PackedMaster.step, SparseMaster.sparse_step, directions.law

    def watched(self, *args):
        made = step(self, *args)
        seen.append(made.x.dtype)
        return made

    def drawn(name):
        here = plain(name)
        return replace(
            here, draw=lambda bits, start, out: (seen.append(torch.from_numpy(out).dtype), here.draw(bits, start, out))
        )

    def watched_sparse(self, *args):
        made = sparse_step(self, *args)
        seen.append(made[1].x.dtype)
        return made

    monkeypatch.setattr(PackedMaster, "step", watched)
    monkeypatch.setattr(SparseMaster, "sparse_step", watched_sparse)
    monkeypatch.setattr(directions, "law", drawn)
    oracle = Local(moves, lambda number: IDS, lambda ids: float(logits(model).square().mean()))
    method = Method(TwoPoint(0, 1.0, noise=(noise,)), (SignStep(1.0, vote=True),))
    lines = list(engine.run(moves, oracle, method, steps=3))
    assert sum(line.moved.changed for line in lines) > 0
    assert seen and set(seen) == {torch.int32}
    for leaf in moves.leaves:
        assert isinstance(leaf, PackedLeaf)
        master = moves.masters()[leaf.name]
        layer = next(one for one in layers(model).values() if one.filed_codes.name == leaf.name)
        assert master.dtype == torch.uint8 and master.data_ptr() == layer.weight.codes.data_ptr()
        assert master.numel() * 8 == leaf.shape[0] * leaf.shape[1] * layer.bits


def test_losses_that_agree_move_nothing(tmp_path):
    moves = space(load(example(tmp_path), "cpu"), "codes", "cells")
    estimate = TwoPoint(0, 1.0, noise=("uniform_grid:1",)).tell(0, from_means((1.0, 1.0)))
    done, _ = SignStep(1.0, vote=True).update(0, estimate, {})
    assert moves.apply(done.move).changed == 0


def test_a_step_of_part_of_a_cell_is_rounded_at_random(tmp_path):
    model = load(example(tmp_path), "cpu")
    moves = space(model, "codes", "cells")
    before = {name: codes(layer) for name, layer in layers(model).items()}
    moved = moves.apply(Move((Term(3, 0.25, "rademacher"),)))
    assert 0.2 < moved.changed / moved.total < 0.3
    assert all((codes(layer) - before[name]).abs().max() == 1 for name, layer in layers(model).items())


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_saved_is_what_was_shown(tmp_path, shape):
    base = example(tmp_path / "base", shape)
    model = load(base, "cpu")
    moves = space(model, "codes", "cells")
    moves.apply(Move((Term(1, 1.0, "uniform_grid:1"),)))
    shown = logits(model)
    with moves.as_exported():
        assert torch.equal(logits(model), shown)
    saved = moves.exported()
    Checkpoint.open(base).save_patched(tmp_path / "saved", saved)
    assert torch.equal(logits(load(tmp_path / "saved", "cpu", kernel="reference")), shown)
    one, two = Checkpoint.open(base), Checkpoint.open(tmp_path / "saved")
    differ = {name for name in one.info if not torch.equal(one.read(name), two.read(name))}
    assert differ == set(saved) and all(name.endswith(".qweight") for name in differ)
    masters = {name: tensor.clone() for name, tensor in moves.masters().items()}
    moves.apply(Move((Term(2, 1.0, "uniform_grid:1"),)))
    moves.restore(masters)
    assert torch.equal(logits(model), shown)
