"""What a rewritten folder tells other libraries to leave in float: every linear layer that they build and it holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import forq
from forq.models.convert.owners import left_in_float
from tests import tiny_encoders


def settings(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    found: dict[str, Any] = config["quantization_config"]
    return found


@pytest.fixture(params=["BertModel", "BertForPreTraining"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An encoder with a pooler, and with a second head, which forq does not build."""
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.BertConfig(**tiny_encoders.KINDS["bert"])
    getattr(transformers, request.param)(config).save_pretrained(tmp_path / "float")
    assert json.loads((tmp_path / "float" / "config.json").read_text())["architectures"] == [request.param]
    return tmp_path / "float"


def extra(source: Path) -> set[str]:
    bare = json.loads((source / "config.json").read_text())["architectures"] == ["BertModel"]
    return {"pooler.dense"} if bare else {"bert.pooler.dense", "cls.seq_relationship", "cls.predictions.decoder"}


def names(source: Path) -> tuple[set[str], set[str]]:
    """The linear layers of transformers' model: those of its blocks, and the others."""
    maker: Any = transformers.BertModel if "pooler.dense" in extra(source) else transformers.BertForPreTraining
    model = maker.from_pretrained(source)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    inside = {name for name in linear if "encoder.layer." in name}
    assert extra(source) <= linear - inside and len(inside) == 12
    return inside, linear - inside


@pytest.mark.parametrize("to", ["nf4", "fp4"])
def test_bitsandbytes_is_told_of_poolers_and_second_heads(to: str, source: Path, tmp_path: Path) -> None:
    forq.quantize(source, tmp_path / "q", to=to)
    skipped = settings(tmp_path / "q")["llm_int8_skip_modules"]
    inside, outside = names(source)
    assert set(skipped) == outside
    # As transformers reads the list.
    assert not any(re.match(rf"{key}\.", name) or name.endswith(key) for key in skipped for name in inside)


@pytest.mark.parametrize(("to", "key"), [("awq", "modules_to_not_convert"), ("compressed-tensors", "ignore")])
def test_so_are_the_loaders_of_exports(to: str, key: str, source: Path, tmp_path: Path) -> None:
    forq.quantize(source, tmp_path / "q", group_size=16)
    forq.export(tmp_path / "q", tmp_path / "out", to)
    told = {name.removeprefix("re:.*").removesuffix("$") for name in settings(tmp_path / "out")[key]}
    assert told == names(source)[1]


@pytest.mark.parametrize("architectures", [None, [], ["SomeoneElsesModel"]])
def test_without_a_known_class_the_bare_model_is_meant(architectures: list[str] | None) -> None:
    config = transformers.BertConfig(**tiny_encoders.KINDS["bert"]).to_dict() | {"architectures": architectures}
    quantized = [f"encoder.layer.{number}.output.dense" for number in range(2)]
    found = left_in_float(config, quantized)
    assert "pooler.dense" in found and not set(quantized) & set(found) and len(found) == 12 - 2 + 1


def test_a_layer_is_known_with_and_without_the_prefix_of_the_base() -> None:
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)
    told = config.to_dict() | {"architectures": ["LlamaModel"]}
    for prefix in ("", "model."):
        found = left_in_float(told, [f"{prefix}layers.0.mlp.up_proj"])
        assert "lm_head" in found and not any(name.endswith("up_proj") for name in found)
        assert {"model.layers.0.mlp.down_proj", "layers.0.mlp.down_proj"} <= set(found)
