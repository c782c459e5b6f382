"""What a run has fixed stays, but a prior belongs to the prompt and the labels that it was measured with."""

import shutil

import pytest

import forq
from forq.runs.fixed_options import source_run, with_facts

RUN = {"prompt": "{text}\nKind:", "prior": "-1.0,-0.5", "moment": "2026-11-29T10:00:00"}


def test_options_of_a_run_stay():
    assert with_facts(RUN, {"max_length": 64}) == {**RUN, "max_length": 64}
    assert with_facts(RUN, {"prompt": RUN["prompt"]}) == RUN


@pytest.mark.parametrize("asked", [{"prompt": "{text}\nAnswer:"}, {"labels": "labels.csv"}, {"by": "mask"}])
def test_a_prior_of_other_words_or_another_prompt_is_dropped(asked):
    assert with_facts(RUN, asked) == {**{k: v for k, v in RUN.items() if k != "prior"}, **asked}
    assert with_facts(RUN, {**asked, "prior": "-2.0,-0.1"})["prior"] == "-2.0,-0.1"


def test_the_run_of_what_it_saved_is_found_by_its_folder_and_by_its_file(base, text, tmp_path, monkeypatch):
    run = forq.tune(forq.load(base), "text", text, steps=1, out=tmp_path / "run", seed=3)
    saved = run.folder / "checkpoint"
    file = saved / "model.safetensors"
    found = source_run(str(run.folder))
    assert found is not None and found.seed == 3
    assert source_run(str(saved)) == source_run(str(file)) == found
    monkeypatch.chdir(saved)
    assert source_run(file.name) == source_run(".") == found

    # A file of another folder is its own: a run keeps only what it saved in checkpoint/.
    (run.folder / "other").mkdir()
    shutil.copy(file, run.folder / "other")
    assert source_run(str(run.folder / "other" / file.name)) is None
    assert source_run(str(saved / "gone.gguf")) is None
