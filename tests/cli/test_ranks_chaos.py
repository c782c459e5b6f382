"""Ranks under torchrun are killed, stopped and put to sleep; `make ranks-chaos` does it thirty times."""

from experiments import ranks_chaos as chaos


def test_a_run_whose_ranks_are_struck_three_times_ends_in_the_same_bytes(base, text, tmp_path):
    steps = 60
    chaos.undisturbed(base, text, tmp_path / "one", steps)
    struck = chaos.disturbed(base, text, tmp_path / "run", steps, 2, ("kill", "sleep", "kill"), seed=5)
    assert [event.kind for event in struck] == ["kill", "sleep", "kill"]
    assert chaos.same(tmp_path / "one", tmp_path / "run")
