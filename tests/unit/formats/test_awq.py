"""AWQ: its words in both directions, every way a file can contradict its settings, and the other layouts refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.errors import FormatError
from forq.formats import recognised
from forq.formats.awq import format as awq
from forq.formats.codecs import awq_words, awq_write, gptq_write
from forq.formats.gptq import format as gptq
from forq.layers.weight import QuantWeight
from forq.models.load import load
from tests import tiny_checkpoints
from tests.fixtures.awq import example
from tests.reference.awq import cut
from tests.repacked import repacked

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return example(tmp_path / "example")


def rewritten(folder: Path, change: dict[str, torch.Tensor | None]) -> Checkpoint:
    """The folder's tensors with some replaced (or left out, by None)."""
    ckpt = Checkpoint.open(folder)
    tensors = {name: ckpt.read(name) for name in ckpt.info} | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
    write_file(folder / "model.safetensors", plan, kept.items())
    return Checkpoint.open(folder)


def configured(folder: Path, **settings: Any) -> Checkpoint:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= settings
    (folder / "config.json").write_text(json.dumps(config))
    return Checkpoint.open(folder)


def test_a_code_is_where_the_format_puts_it() -> None:
    word = sum(output << 4 * place for place, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)))
    assert awq_words.unpack_words(torch.tensor([[word, 0]], dtype=torch.int32)).tolist() == [[*range(8), *[0] * 8]]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_words_come_back(pairs: int, words: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    qweight = torch.randint(-(2**31), 2**31, (2 * pairs, words), generator=draw).to(torch.int32)
    whole = awq_words.unpack_words(qweight)
    assert whole.tolist() == [cut(row) for row in qweight.numpy()]
    assert torch.equal(awq_words.pack_words(whole.to(torch.int8)), qweight)
    codes = awq_words.unpack_codes(qweight)
    assert codes.shape == (8 * words, pairs) and torch.equal(awq_words.pack_codes(codes), qweight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scales_of_every_float_dtype_are_read(folder: Path, dtype: torch.dtype) -> None:
    name = f"{Q}.scales"
    stored = Checkpoint.open(folder).read(name).to(dtype)
    ckpt = rewritten(folder, {name: stored})
    spec = awq.layers(ckpt)[Q]
    assert spec.live[0].dtype == dtype and torch.equal(awq.read(ckpt, spec).live[0], stored)


def test_older_files_keep_their_settings_in_a_file_of_their_own(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    older = {"zero_point": True, "q_group_size": 16, "w_bit": 4, "version": "GEMM"}
    (folder / "quant_config.json").write_text(json.dumps(older))
    ckpt = Checkpoint.open(folder)
    assert recognised(ckpt) is awq and awq.layers(ckpt)[Q].group_size == 16


@pytest.mark.parametrize("kind", ["llama-tied", "llama-biased", "opt", "opt-350m"])
def test_models_with_ties_biases_and_shards_load(kind: str, tmp_path: Path) -> None:
    floating = tiny_checkpoints.folder(tmp_path / "float", kind)
    quantized = repacked(floating, tmp_path / "awq", awq, group_size=8, shards=3, left=("v_proj",))
    model, exact = load(quantized, device="cpu"), load(floating, device="cpu")
    ids = tiny_checkpoints.ids()
    off = (model(ids).logits - exact(ids).logits).norm() / exact(ids).logits.norm()
    assert 0 < off < 0.25  # what 4 bits cost a random model


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"version": "gemv"}, "found 'gemv'"),
        ({"version": "marlin", "zero_point": False}, "found 'marlin'"),
        ({"version": "GEMV_FAST"}, "found 'GEMV_FAST'"),
        ({"version": None, "format": "llm-awq"}, "found 'llm-awq'"),
        ({"backend": "llm-awq"}, "found 'llm-awq'"),
        ({"version": 4}, "found 4"),
        ({"bits": 8}, "expected 4 bits, found 8"),
        ({"bits": "4"}, "whole numbers"),
        ({"group_size": None}, "whole numbers"),
        ({"group_size": 0}, "positive group_size"),
        ({"group_size": 8}, "contradicts the tensors"),
        ({"group_size": 32}, "expected an even number of inputs, in groups of 32"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder: Path, settings: dict[str, Any], says: str) -> None:
    ckpt = configured(folder, **settings)
    assert recognised(ckpt) is awq
    with pytest.raises(FormatError, match=says):
        awq.layers(ckpt)


@pytest.mark.parametrize(
    ("kind", "tensor", "says"),
    [
        ("scales", None, "expected a tensor 'scales'"),
        ("qzeros", None, "expected a tensor 'qzeros'"),
        ("scales", torch.zeros(2, 31, dtype=torch.float16), "contradicts the tensors"),
        ("scales", torch.zeros(2, 32, dtype=torch.int32), "contradicts the tensors"),
        ("qzeros", torch.zeros(3, 4, dtype=torch.int32), "contradicts the tensors"),
        ("qweight", torch.zeros(32, 4, dtype=torch.int16), "contradicts the tensors"),
        ("qweight", torch.zeros(4, 32, dtype=torch.int32), "in groups of 16, found 4"),
        ("qweight", torch.zeros(0, 4, dtype=torch.int32), "expected a matrix"),
        ("bias", torch.zeros(31), "contradicts the tensors"),
    ],
)
def test_tensors_that_cannot_be_are_refused(folder: Path, kind: str, tensor: torch.Tensor | None, says: str) -> None:
    ckpt = rewritten(folder, {f"{Q}.{kind}": tensor})
    with pytest.raises(FormatError, match=says):
        awq.layers(ckpt)


def test_a_checkpoint_that_only_says_awq_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "float", "llama")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 16}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match="expected tensors called qweight"):
        load(folder, device="cpu")


def test_activations_with_scales_of_their_own_are_refused(folder: Path) -> None:
    ckpt = rewritten(folder, {"model.layers.0.mlp.act.scales": torch.ones(48)})
    with pytest.raises(FormatError, match="activations without scales"):
        awq.layers(ckpt)


def weight(**changes: Any) -> QuantWeight:
    how = {"bits": 4, "group_size": 16, "zeros": torch.full((2, 8), 15, dtype=torch.int8)} | changes
    return QuantWeight(torch.zeros(8, 32 * how["bits"] // 8, dtype=torch.uint8), **how)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"bits": 3}, "found 3 bits"),
        ({"group_of": torch.tensor([0, 1] * 16, dtype=torch.int32)}, "in act-order"),
        ({"zeros": torch.full((2, 8), 16, dtype=torch.int8)}, "found 16 to 16"),
        ({"zeros": torch.full((2, 8), 7.5)}, "whole zero points"),
        ({"group_size": 24}, "whole groups"),
    ],
)
def test_what_the_format_cannot_say_is_not_packed(made: dict[str, Any], says: str) -> None:
    assert set(awq_write.pack(weight())) == {"qweight", "qzeros"}
    with pytest.raises(FormatError, match=says):
        awq_write.pack(weight(**made))


def test_gptq_and_back_loses_nothing(folder: Path, tmp_path: Path) -> None:
    """The same codes, zeros and scales in the other format's words; the models are equal to the last bit."""
    ckpt = Checkpoint.open(folder)
    made = {name: ckpt.read(name) for name in ckpt.info}
    for module, spec in awq.layers(ckpt).items():
        parts = awq.read(ckpt, spec)
        made |= {f"{module}.{kind}": tensor for kind, tensor in gptq_write.pack(parts.weight, "gptq_v2").items()}
    other = tmp_path / "gptq"
    other.mkdir()
    write_file(other / "model.safetensors", {n: (t.dtype, tuple(t.shape)) for n, t in made.items()}, made.items())
    how = {"quant_method": "gptq", "bits": 4, "group_size": 16, "checkpoint_format": "gptq_v2", "desc_act": False}
    (other / "config.json").write_text(json.dumps(ckpt.config | {"quantization_config": how}))
    ids = torch.tensor([[1, 5, 9, 2]])
    assert torch.equal(load(other, device="cpu")(ids).logits, load(folder, device="cpu")(ids).logits)
    there = Checkpoint.open(other)
    for module, spec in gptq.layers(there).items():
        parts = gptq.read(there, spec)
        for kind, tensor in (awq_write.pack(parts.weight) | awq.pack_scales(parts.live[0])).items():
            assert torch.equal(tensor, ckpt.read(f"{module}.{kind}"))
