"""GGUF: keys of a header are followed as llama.cpp follows them, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from forq.checkpoints.containers.gguf import rope as _gguf_rope
from forq.checkpoints.containers.gguf.keys import Keys
from forq.errors import FormatError
from forq.models.load import load
from tests.fixtures import gguf
from tests.unit.formats.test_gguf import again

IDS = torch.tensor([[1, 5, 9, 2, 40, 33, 5, 63]])
LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0}
TYPED = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}


def keys(values: Mapping[str, Any]) -> Keys:
    return Keys(Path("x.gguf"), "llama", {f"llama.{key}": value for key, value in values.items()})


def rope(values: Mapping[str, Any]) -> Any:
    return _gguf_rope.settings(keys(values), head=16, context=64)


@pytest.mark.parametrize(
    ("values", "scaling"),
    [
        ({}, None),
        ({"rope.scaling.factor": 4.0}, LINEAR),
        ({"rope.scale_linear": 4.0}, LINEAR),
        ({"rope.scale_linear": 9.0, "rope.scaling.factor": 4.0}, LINEAR),
        ({"rope.scale_linear": 9.0, "rope.scaling.factor": 0.0}, None),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        ({"rope.scaling.type": "linear"}, None),
        ({"rope.scaling.type": "yarn", "rope.scale_linear": 4.0}, YARN | {"original_max_position_embeddings": 64}),
        ({**TYPED, "rope.scaling.original_context_length": 32}, YARN | {"original_max_position_embeddings": 32}),
        ({"rope.dimension_count": 16}, None),
    ],
)
def test_positions_are_scaled_as_llama_cpp_scales_them(values: dict[str, Any], scaling: Any) -> None:
    assert rope(values) == {"rope_theta": 10000.0} | ({} if scaling is None else {"rope_scaling": scaling})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rope.dimension_count", 8),
        ("rope.freq_base", 0.5),
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.factor", -2.0),
        ("rope.scale_linear", "x"),
    ],
)
def test_positions_that_cannot_be_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(FormatError, match=rf"x\.gguf: expected .* for llama\.{name}, found {value!r}"):
        rope({name: value})


def test_a_context_too_short_for_yarn_is_refused() -> None:
    with pytest.raises(FormatError, match=r"7 or more for llama\.rope\.scaling\.original_context_length, found 6"):
        rope({**TYPED, "rope.scaling.original_context_length": 6})


def test_a_list_must_repeat_one_number() -> None:
    assert keys({"attention.head_count_kv": [2, 2]}).whole("attention.head_count_kv") == 2
    with pytest.raises(FormatError, match=r"llama.attention.head_count_kv, found \[2, 1\]"):
        keys({"attention.head_count_kv": [2, 1]}).whole("attention.head_count_kv")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention.causal", False),
        ("expert_used_count", 2),
        ("nextn_predict_layers", 1),
        ("attention.value_length", 16),
        ("attention.key_length", 16),
        ("context_length", None),
        ("attention.layer_norm_rms_epsilon", None),
    ],
)
def test_what_forq_does_not_compute_is_refused_by_name(name: str, value: Any, tmp_path: Path) -> None:
    def change(values: dict[str, Any], tensors: Any) -> None:
        values.pop(f"llama.{name}", None)
        values.update({} if value is None else {f"llama.{name}": value})

    file = again(gguf.example(tmp_path / "a"), change)
    told = "attention.value_length" if name == "attention.key_length" else name
    with pytest.raises(FormatError, match=f"for llama.{told}, found"):
        load(file, device="cpu")


def test_a_magnitude_of_rotations_scales_scores_twice(tmp_path: Path) -> None:
    file = gguf.example(tmp_path / "a")
    plain: Any = load(file, device="cpu")
    again(file, lambda values, tensors: values.update({"llama.rope.scaling.attn_factor": 0.5}))
    model: Any = load(file, device="cpu")
    assert not torch.allclose(model(IDS).logits, plain(IDS).logits, atol=1e-3)
    plain.model.layers[0].self_attn.scaling *= 0.25
    assert torch.allclose(model(IDS).logits, plain(IDS).logits, atol=1e-6)


def test_keys_that_are_not_known_are_named(tmp_path: Path) -> None:
    file = gguf.example(tmp_path / "a")
    assert not load(file, device="cpu").unlike
    again(file, lambda values, tensors: values.update({"llama.attention.sliding_window": 8, "llama.vocab_size": 64}))
    (told,) = load(file, device="cpu").unlike
    assert told.startswith("tiny.gguf sets llama.attention.sliding_window: forq computes as if")
