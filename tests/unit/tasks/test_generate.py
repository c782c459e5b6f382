"""Texts are written by the model's probabilities alone; settings that would change the likeliest text are named."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

import forq
from forq.tasks.kinds import generate
from forq.tasks.kinds.generate import written
from tests import tiny_lm

PROMPT = [0, 50, 60, 70]


def saved(folder: Path, **settings: Any) -> Path:
    transformers.utils.logging.disable_progress_bar()
    tiny_lm.model("llama").save_pretrained(folder)
    plain = {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 0.7, "top_k": 5}
    (folder / "generation_config.json").write_text(json.dumps(plain | settings))
    return folder


def test_a_penalty_is_named_and_not_applied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generate._warn.cache_clear()
    own = forq.load(saved(tmp_path / "plain"), "cpu")
    plain = written(own, [PROMPT], 12)
    assert not caplog.records, "sampling alone leaves the likeliest text as it is"
    folder = saved(tmp_path / "penalty", repetition_penalty=1.5)
    model = forq.load(folder, "cpu")
    assert written(model, [PROMPT], 12) == written(model, [PROMPT], 12) == plain
    (record,) = caplog.records
    assert "generation_config.json sets repetition_penalty 1.5" in record.getMessage()
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    given = {"attention_mask": torch.ones(1, 4, dtype=torch.long), "max_new_tokens": 12, "do_sample": False}
    assert theirs.generate(torch.tensor([PROMPT]), **given)[0, 4:].tolist() != plain[0], "transformers applies it"


@pytest.mark.parametrize(
    "setting",
    [
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 1},
        {"forced_eos_token_id": 0},
        {"forced_bos_token_id": 1},
        {"stop_strings": ["\n"]},
        {"guidance_scale": 1.5},
    ],
)
def test_a_setting_of_0_or_1_may_change_a_text_too(setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    assert generate._not_followed(SimpleNamespace(generation_config=SimpleNamespace(**setting))) == f"{name} {value}"  # type: ignore[arg-type]


def test_settings_that_change_no_text_are_not_named(tmp_path: Path) -> None:
    neutral = {"repetition_penalty": 1.0, "num_beams": 1, "guidance_scale": 1.0, "min_length": 0, "bad_words_ids": []}
    for settings in (SimpleNamespace(**neutral), transformers.GenerationConfig(), None):
        assert generate._not_followed(SimpleNamespace(generation_config=settings)) == ""  # type: ignore[arg-type]


def test_transformers_follows_a_size_of_1(tmp_path: Path) -> None:
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(saved(tmp_path, no_repeat_ngram_size=1))
    given = {"attention_mask": torch.ones(1, 4, dtype=torch.long), "max_new_tokens": 40, "do_sample": False}
    text = theirs.generate(torch.tensor([PROMPT]), **given)[0, 4:].tolist()
    assert len(set(text)) == len(text)
