"""Layers and tokenizers written as GGUF: the type that is chosen, the same weights, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from tokenizers import normalizers, pre_tokenizers

import forq
from forq.checkpoints.containers.gguf import header
from forq.checkpoints.containers.gguf.kinds import NUMBERS
from forq.errors import ConfigError, FormatError
from forq.layers.codes import pack
from forq.layers.kernels.reference import dequantise
from forq.layers.weight import QuantWeight, zeros_dtype
from forq.models.convert.gguf.blocks import kind_of, packed
from forq.models.convert.quantize import quantize
from forq.models.load import load
from tests import tiny_lm
from tests.fixtures import gptq

IDS = torch.tensor([[1, 5, 9, 2, 40, 33]])


def weight(bits: int, zero: int | None, group: int = 64, inputs: int = 192) -> tuple[QuantWeight, torch.Tensor]:
    """Random codes of every value, zero points (drawn where None) and float16 scales; the last group is shorter."""
    draw = torch.Generator().manual_seed(bits)
    rows, groups = 24, -(-inputs // group)
    codes = torch.randint(0, 1 << bits, (rows, inputs), dtype=torch.uint8, generator=draw)
    zeros = torch.randint(0, 1 << bits, (groups, rows), generator=draw)
    zeros = (zeros if zero is None else torch.full_like(zeros, zero)).to(zeros_dtype(bits))
    scales = (torch.rand(groups, rows, generator=draw) * 0.01 + 0.001).half().float()
    return QuantWeight(pack(codes, bits), zeros, bits, group), scales


@pytest.mark.parametrize(
    ("bits", "zero", "kind"),
    [(4, 8, "Q4_0"), (3, 4, "Q4_0"), (2, None, "Q4_0"), (4, None, "Q5_0"), (4, 0, "Q4_1"), (8, 128, "Q8_0")],
)
def test_the_smallest_type_that_keeps_every_weight_is_chosen(bits: int, zero: int | None, kind: str) -> None:
    frozen, scales = weight(bits, zero)
    assert kind_of(frozen, scales).name == kind
    raw = packed(frozen, scales, kind_of(frozen, scales)).numpy()
    found = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(NUMBERS[kind]))
    assert np.array_equal(found, dequantise(frozen, scales).numpy())


def test_a_minimum_is_stored_where_every_minimum_is_a_float16() -> None:
    frozen, scales = weight(4, None)
    powers = torch.exp2(torch.round(torch.log2(scales)))
    assert kind_of(frozen, powers).name == "Q4_1" and kind_of(frozen, scales).name == "Q5_0"
    raw = packed(frozen, powers, kind_of(frozen, powers)).numpy()
    assert np.array_equal(gguf.quants.dequantize(raw, 3), dequantise(frozen, powers).numpy())


def test_layers_that_no_type_holds_are_refused() -> None:
    for group, said in ((16, "groups of whole multiples of 32"), (48, "groups of 48")):
        with pytest.raises(FormatError, match=said):
            kind_of(*weight(4, 8, group=group))
    with pytest.raises(FormatError, match="127 above and 128 below"):
        kind_of(*weight(8, 0))
    frozen, scales = weight(4, 8)
    with pytest.raises(FormatError, match="scales that fit float16"):
        packed(frozen, scales * 1e8, kind_of(frozen, scales))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("source"))


def made(root: Path, tokenizer: Any = None, **settings: Any) -> Path:
    """A tiny quantized model with a tokenizer beside it."""
    model = tiny_lm.model(**{"hidden_size": 64, "intermediate_size": 96, **settings})
    model.half().save_pretrained(root / "float")
    (tokenizer or tiny_lm.tokenizer()).save_pretrained(root / "float")
    return quantize(root / "float", root / "gptq", group_size=32).path


def test_the_file_is_the_model_and_its_tokenizer(source: Path, tmp_path: Path) -> None:
    done = forq.export(source, tmp_path / "out", "gguf")
    assert (done.changed, done.layers) == (0, 14) and "14 in Q4_0" in done.notes[0]
    file = tmp_path / "out" / "model.gguf"
    assert [path.name for path in file.parent.iterdir()] == ["model.gguf"]
    ours, theirs = load(file, device="cpu"), load(source, device="cpu")
    assert (ours(IDS).logits - theirs(IDS).logits).abs().max() < 1e-5 * theirs(IDS).logits.abs().max()
    kept = transformers.AutoTokenizer.from_pretrained(source)
    assert ours.tokenizer("It was great, 12!")["input_ids"] == kept("It was great, 12!")["input_ids"]
    values = header.read(file).values
    assert values["tokenizer.ggml.pre"] == "gpt-2" and len(values["tokenizer.ggml.tokens"]) == 400
    assert values["tokenizer.ggml.tokens"][-1] == "[PAD399]" and values["tokenizer.ggml.token_type"][-1] == 5


ROPES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    },
}  # fmt: skip


@pytest.mark.parametrize("rope", ROPES)
def test_scaled_positions_are_kept(rope: str, tmp_path: Path) -> None:
    settings = {"rope_type": rope, "rope_theta": 10000.0, **ROPES[rope]}
    folder = made(tmp_path, rope_parameters=settings)
    forq.export(folder, tmp_path / "out", "gguf")
    want = load(folder, device="cpu")(IDS).logits
    assert (load(tmp_path / "out", device="cpu")(IDS).logits - want).abs().max() < 2e-5 * want.abs().max()


def refused(folder: Path, out: Path, said: str) -> None:
    with pytest.raises((FormatError, ConfigError), match=said):
        forq.export(folder, out, "gguf")
    assert not out.exists()


def test_what_a_file_cannot_state_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    forq.export(source, tmp_path / "gguf", "gguf")
    refused(tmp_path / "gguf", tmp_path / "again", "found a GGUF file: copy it")
    refused(source, tmp_path / "x.gguf", "expected a folder, in which the file will be model.gguf")
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    refused(made(tmp_path / "dynamic", rope_parameters=rope), tmp_path / "out", "found 'dynamic'")
    refused(made(tmp_path / "gelu", hidden_act="gelu"), tmp_path / "out", "hidden_act is 'gelu'")
    refused(made(tmp_path / "opt", kind="opt", ffn_dim=64), tmp_path / "out", "found 'opt'")
    refused(made(tmp_path / "bias", kind="qwen3", attention_bias=True), tmp_path / "out", "attention_bias is True")
    window = made(tmp_path / "window", kind="mistral", sliding_window=8)
    refused(window, tmp_path / "out", "sliding_window is 8")
    # Mistral's class does not look at use_sliding_window.
    window = made(tmp_path / "off", kind="mistral", sliding_window=8, use_sliding_window=False)
    refused(window, tmp_path / "out", "sliding_window is 8")
    off = made(tmp_path / "qwen", kind="qwen2", sliding_window=8, use_sliding_window=False)
    assert forq.export(off, tmp_path / "qwen-gguf", "gguf").changed == 0


def changed(change: Callable[[Any], None]) -> Any:
    """The tiny tokenizer with something else about it."""
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=type(tiny_lm.tokenizer().backend_tokenizer).from_str(
            tiny_lm.tokenizer().backend_tokenizer.to_str()
        ),
        bos_token="<s>",
        eos_token="</s>",
    )
    change(own)
    return own


def test_tokenizers_that_llama_cpp_cannot_follow_are_refused(tmp_path: Path) -> None:
    def whole_texts(own: Any) -> None:
        own.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def lower(own: Any) -> None:
        own.backend_tokenizer.normalizer = normalizers.Lowercase()

    def composed(own: Any) -> None:
        own.backend_tokenizer.normalizer = normalizers.NFC()

    refused(made(tmp_path / "a", changed(whole_texts)), tmp_path / "out", "splits texts otherwise")
    refused(made(tmp_path / "b", changed(lower)), tmp_path / "out", 'reads "Hello, world!')
    done = forq.export(made(tmp_path / "c", changed(composed)), tmp_path / "out", "gguf")
    assert any("NFC" in note for note in done.notes)
    for file in (tmp_path / "c" / "gptq").glob("token*"):
        file.unlink()
    refused(tmp_path / "c" / "gptq", tmp_path / "no", "expected a tokenizer beside the model")


def test_act_order_is_refused_by_the_layer(tmp_path: Path) -> None:
    folder = gptq.example(tmp_path / "act-order", desc_act=True)
    own = tiny_lm.tokenizer(vocabulary=258)
    own.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] < len(own)
    refused(folder, tmp_path / "out", f"found the token {len(own) - 1}")
    with pytest.raises(FormatError, match=r"found act-order \(desc_act\), which GGUF cannot state"):
        kind_of(*act_order())


def act_order() -> tuple[QuantWeight, torch.Tensor]:
    frozen, scales = weight(4, 8)
    order = torch.arange(frozen.in_features, dtype=torch.int32).flip(0) // frozen.group_size
    return replace(frozen, group_of=order), scales
