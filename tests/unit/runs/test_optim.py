"""forq.QZO: a calibration spread over the first calls, one measurement each, on the batches those calls bring."""

import numpy as np
import pytest
import torch

import forq
from forq.coordinates.space import Space
from tests.toys import Toy

NOISE = 3.0


def drawn(number):
    return torch.from_numpy(np.random.default_rng(number).standard_normal((200, 20))).float()


TRUE = drawn(10_000)


class Problem:
    """A quadratic whose batches add slopes of their own, ``NOISE`` times as large as the true one's."""

    def __init__(self) -> None:
        self.leaf = Toy("a", torch.ones(200, 20), group="scales")
        self.space = Space([self.leaf])
        self.calls = 0

    def batch(self, number):
        own = drawn(number)

        def closure():
            self.calls += 1
            x = self.leaf.x - 1.0
            return float((0.05 * x * (TRUE + NOISE * own)).sum() + 0.05 * (x * x).sum())

        return closure


def calibrated(batches):
    problem = Problem()
    optimizer = forq.QZO(problem.space, seed=2)
    start, number = problem.space.digest(), 0
    while optimizer.found is None:
        problem.calls = 0
        optimizer.step(problem.batch(batches(number)))
        number += 1
        if optimizer.found is None:
            assert problem.space.digest() == start, "a calibration moves nothing"
            assert problem.calls <= 49, "one measurement a call"
    assert problem.space.digest() != start, "the first call after it takes a step"
    return optimizer, number


def test_a_calibration_sees_the_batches_of_its_calls():
    changing, calls = calibrated(lambda number: number)
    assert 15 <= calls <= 25
    assert changing.found["share"] == pytest.approx(1 / (1 + NOISE**2), abs=0.12), "what a batch and another agree on"
    still, _ = calibrated(lambda number: 0)
    assert still.found["share"] > 0.9
    assert still.found["lr"] > 5 * changing.found["lr"], "what one batch alone would make of it"


def test_what_needs_no_calibration_steps_at_once():
    problem = Problem()
    start = problem.space.digest()
    optimizer = forq.QZO(problem.space, lr=1e-3, eps=1e-2, clip=1.0)
    optimizer.step(problem.batch(0))
    assert problem.space.digest() != start


def test_a_closure_that_raises_is_called_anew():
    problem = Problem()
    optimizer = forq.QZO(problem.space)

    def broken():
        raise ValueError("no batch")

    optimizer.step(problem.batch(0))
    with pytest.raises(ValueError, match="no batch"):
        optimizer.step(broken)
    while optimizer.found is None:
        optimizer.step(problem.batch(1))


@pytest.mark.parametrize("calls", [0, 3, 40])
def test_a_state_goes_on_bit_for_bit(calls, tmp_path):
    """Before, within and after the calibration; through a file that is read without running code."""
    whole, first = Problem(), Problem()
    undisturbed, stopped = forq.ZeroOrder(whole.space, seed=5), forq.ZeroOrder(first.space, seed=5)
    for number in range(45):
        undisturbed.step(whole.batch(number))
    for number in range(calls):
        stopped.step(first.batch(number))
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    second = Problem()
    resumed = forq.ZeroOrder(second.space, seed=5)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for number in range(calls, 45):
        resumed.step(second.batch(number))
    assert second.space.digest() == whole.space.digest() and resumed.found == undisturbed.found


def test_a_state_of_other_settings_is_refused():
    state = forq.ZeroOrder(Problem().space, lr=1e-3).state_dict()
    with pytest.raises(forq.ConfigError, match="the settings it was saved with"):
        forq.ZeroOrder(Problem().space, lr=1e-2).load_state_dict(state)
    with pytest.raises(forq.ConfigError, match="version"):
        forq.ZeroOrder(Problem().space, lr=1e-3).load_state_dict({**state, "version": 9})


def test_steps_are_measured_in_the_unit_of_the_space(base):
    """A space of absolute units has no relative radius to try, so that one has to be given."""
    model = forq.load(base)
    assert forq.ZeroOrder(forq.space(model)).settings.unit == "relative"
    absolute = forq.ZeroOrder(forq.space(model, unit="absolute"), lr=1e-4, eps=1e-3, clip=1.0)
    assert absolute.settings.unit == "absolute"
    with pytest.raises(forq.ConfigError, match="with unit 'absolute' give a number"):
        forq.ZeroOrder(forq.space(model, unit="absolute")).step(lambda: 1.0)


def test_a_state_from_before_a_setting_existed_goes_on():
    optimizer = forq.ZeroOrder(Problem().space, "qzo-slopes", lr=1e-2)
    state = optimizer.state_dict()
    del state["settings"]["blocks"], state["settings"]["rule"]["damping"]
    forq.ZeroOrder(Problem().space, "qzo-slopes", lr=1e-2).load_state_dict(state)


def test_losses_that_are_never_finite_are_an_error():
    problem = Problem()
    optimizer = forq.QZO(problem.space, seed=0, lr=1e-3, eps=1e-3, clip=1.0)
    start, good = problem.space.digest(), problem.batch(0)
    for _ in range(9):
        assert not np.isfinite(optimizer.step(lambda: float("nan")))
    assert problem.space.digest() == start
    optimizer.step(good)  # a finite loss, and the count begins again
    for _ in range(9):
        optimizer.step(lambda: float("inf"))
    with pytest.raises(forq.RunError, match="10 steps in a row gave no finite loss"):
        optimizer.step(lambda: float("nan"))


@pytest.mark.parametrize("returned", [None, [1.0], "0.5"])
def test_a_closure_returns_a_number(returned):
    optimizer = forq.QZO(Problem().space, seed=0, lr=1e-3, eps=1e-3, clip=1.0)
    with pytest.raises(
        forq.ConfigError, match=f"closure: expected the loss as a float, found {type(returned).__name__}"
    ):
        optimizer.step(lambda: returned)
    for several in (torch.ones(3), np.ones((1, 2)), torch.ones(0)):
        with pytest.raises(forq.ConfigError, match=r"as one number, found \w+ of shape \(.*\); return the mean"):
            optimizer.step(lambda several=several: several)
    for one in (torch.tensor(0.5), torch.ones(1, 1), np.float32(0.5)):
        assert optimizer.step(lambda one=one: one) == float(one)
