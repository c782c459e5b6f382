"""Folders of sentence-transformers: texts are cut, turned into lower case and begun as their owner does it, or said.

What is expected here was compared with sentence-transformers 6.2 on the same folders: the cosines are equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import forq
from forq.checkpoints import Checkpoint
from forq.errors import ConfigError
from forq.models.tokenizer import open_tokenizer, reading
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from tests import tiny_encoders, tiny_lm

TEXT = "Film number 3 is good . It was Great and the story says yes yes yes maybe yes"
MODULES = [{"type": "sentence_transformers.models.Transformer", "path": ""}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tiny_encoders.folder(tmp_path / "bert")
    (made / "modules.json").write_text(json.dumps(MODULES))
    return made


def put(folder: Path, name: str, **settings: Any) -> None:
    file = folder / name
    told = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(told | settings))


def opened(folder: Path, times: int = 1, **options: Any) -> Any:
    data = folder.parent / "data.csv"
    data.write_text("text,label\n" + f"{TEXT * times},good\nthe movie is terrible,bad\n" * 6)
    return open_task(TaskConfig(name="classify", data=str(data), options=options), forq.load(folder, "cpu"), seed=0)


def longest(folder: Path, **options: Any) -> int:
    return max(len(row.tokens) for row in opened(folder, **options).rows["train"])


@pytest.mark.parametrize(
    ("file", "setting"),
    [
        ("sentence_bert_config.json", "max_seq_length"),
        ("sentence_roberta_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ],
)
def test_a_text_is_cut_where_its_owner_cuts_it(file: str, setting: str, folder: Path) -> None:
    whole = longest(folder)
    put(folder, file, **{setting: 10})
    assert longest(folder) == 10 < whole
    assert longest(folder, max_length=32) == whole, "up to the positions a user may set more"
    with pytest.raises(ConfigError, match="at most 66 tokens, the model's positions"):
        opened(folder, times=9, max_length=100)


def test_the_tokenizers_length_is_no_limit_in_other_folders(folder: Path) -> None:
    whole = longest(folder)
    put(folder, "tokenizer_config.json", model_max_length=10)
    (folder / "modules.json").unlink()
    assert longest(folder) == whole


def test_texts_are_in_lower_case_where_their_owner_has_them_so(folder: Path) -> None:
    plain = open_tokenizer(Checkpoint.open(folder))
    put(folder, "sentence_bert_config.json", do_lower_case=True)
    ckpt = Checkpoint.open(folder)
    lowered = open_tokenizer(ckpt)
    assert lowered(TEXT)["input_ids"] == plain(TEXT.lower())["input_ids"] != plain(TEXT)["input_ids"]
    assert reading(lowered, ckpt).notes == ()


def test_what_is_written_before_every_text_is_said(folder: Path) -> None:
    put(folder, "config_sentence_transformers.json", prompts={"query": "film : "}, default_prompt_name=None)
    assert forq.load(folder, "cpu").unlike == ()
    put(folder, "config_sentence_transformers.json", default_prompt_name="query")
    assert "writes 'film : ' before every text" in forq.load(folder, "cpu").unlike[0]


@pytest.mark.parametrize("name", ["processor_kwargs", "tokenizer_args"])
def test_the_length_among_the_settings_for_the_tokenizer_comes_first(name: str, folder: Path) -> None:
    put(folder, "sentence_bert_config.json", max_seq_length=12, **{name: {"model_max_length": 9}})
    assert longest(folder) == 9 and forq.load(folder, "cpu").unlike == ()


@pytest.mark.parametrize(
    ("file", "settings", "said"),
    [
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, "compares vectors by 'dot'"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "cosine"}, ""),
        ("sentence_bert_config.json", {"tokenizer_args": {"padding_side": "left"}}, "'padding_side': 'left'"),
        ("sentence_bert_config.json", {"config_kwargs": {"num_hidden_layers": 1}}, "'num_hidden_layers': 1"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 5}}}, "processing_kwargs"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {}}, "model_args": {"dtype": "float32"}}, ""),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
            "takes 'pooler_output' of the encoder",
        ),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}},
            "",
        ),
    ],
)
def test_what_the_owner_does_otherwise_is_said(file: str, settings: dict[str, Any], said: str, folder: Path) -> None:
    put(folder, file, **settings)
    found = forq.load(folder, "cpu").unlike
    assert len(found) == bool(said) and all(said in sentence for sentence in found)


def decoder(where: Path, head: str, *, pools: bool) -> Path:
    tiny_lm.model("llama", tie_word_embeddings=True).save_pretrained(where)
    tiny_lm.tokenizer().save_pretrained(where)
    put(where, "config.json", architectures=[head])
    if pools:
        pooling = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
        (where / "modules.json").write_text(json.dumps([*MODULES, pooling]))
    return where


@pytest.mark.parametrize("head", ["LlamaModel", "LlamaForCausalLM"])
def test_a_decoder_that_makes_sentence_vectors_is_not_tuned_as_a_language_model(head: str, tmp_path: Path) -> None:
    folder = decoder(tmp_path / "llama", head, pools=True)
    assert any("forq computes a language model" in sentence for sentence in forq.load(folder, "cpu").unlike)
    with pytest.raises(ConfigError, match=f"expects a language model, found {head} with a modules.json"):
        opened(folder)


def test_a_decoder_without_a_head_gets_the_embedding_and_it_is_said(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "bare", "LlamaModel", pools=False)
    assert any("names LlamaModel, which has no language head" in said for said in forq.load(folder, "cpu").unlike)
    assert opened(folder, prior=False).rows["train"]
    assert forq.load(decoder(tmp_path / "whole", "LlamaForCausalLM", pools=False), "cpu").unlike == ()
