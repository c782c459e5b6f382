"""What a run has fixed stays, but a prior belongs to the prompt and the labels that it was measured with."""

import pytest

from forq.runs.facts import with_facts

RUN = {"prompt": "{text}\nKind:", "prior": "-1.0,-0.5", "moment": "2026-11-29T10:00:00"}


def test_options_of_a_run_stay():
    assert with_facts(RUN, {"max_length": 64}) == {**RUN, "max_length": 64}
    assert with_facts(RUN, {"prompt": RUN["prompt"]}) == RUN


@pytest.mark.parametrize("asked", [{"prompt": "{text}\nAnswer:"}, {"labels": "labels.csv"}, {"by": "mask"}])
def test_a_prior_of_other_words_or_another_prompt_is_dropped(asked):
    assert with_facts(RUN, asked) == {**{k: v for k, v in RUN.items() if k != "prior"}, **asked}
    assert with_facts(RUN, {**asked, "prior": "-2.0,-0.1"})["prior"] == "-2.0,-0.1"
