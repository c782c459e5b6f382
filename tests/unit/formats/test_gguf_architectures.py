"""GGUF: every architecture of the table against transformers' class with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf.architectures import ARCHITECTURES, REFUSED
from forq.errors import FormatError
from forq.layers.embedding import QuantEmbedding
from forq.models.load import load
from tests.fixtures.gguf_architectures import ROWS, made, write

IDS = torch.randint(0, 320, (1, 40), generator=torch.Generator().manual_seed(2))


def outputs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        answer = model(IDS)
    return answer.logits if hasattr(answer, "logits") else answer.last_hidden_state


@pytest.mark.parametrize("name", ROWS)
def test_logits_are_those_of_transformers_class(name: str, tmp_path: Path) -> None:
    theirs = made(name)
    want = outputs(theirs)
    file = write(tmp_path / "tiny.gguf", name, theirs)
    model = load(file, device="cpu")
    assert not model.unlike
    assert float((outputs(model) - want).abs().max()) < 2e-5 * float(want.abs().max())


def test_every_entry_has_a_row() -> None:
    assert {name.partition(",")[0] for name in ROWS} == set(ARCHITECTURES)
    assert not ARCHITECTURES.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", ROWS)
def test_what_is_read_and_written_back_is_the_same_file(name: str, tmp_path: Path) -> None:
    types = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32)
    file = write(tmp_path / "tiny.gguf", name, made(name), types)
    ckpt = Checkpoint.open(file)
    saved = ckpt.save_patched(tmp_path / "saved", {tensor: ckpt.read(tensor) for tensor in ckpt.info})
    assert (saved.path / file.name).read_bytes() == file.read_bytes()


def test_names_are_gguf_pys_own() -> None:
    """Every tensor that an entry names is one that llama.cpp's tables list for its architecture."""
    for kind, entry in ARCHITECTURES.items():
        arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
        known = {gguf.TENSOR_NAMES[tensor].removeprefix("blk.{bid}.") for tensor in gguf.MODEL_TENSORS[arch]}
        # llama.cpp reads these optional tensors; gguf-py's lists leave them out.
        known |= {"output"} if kind in ("bloom", "mpt", "olmo2") else set()
        named = {*entry.inside, *entry.outside, *entry.orders, *entry.turned}
        assert named <= known, (kind, named - known)


def test_every_architecture_of_gguf_py_is_read_or_refused_with_a_reason(tmp_path: Path) -> None:
    undescribed = set(gguf.MODEL_ARCH_NAMES.values()) - ARCHITECTURES.keys() - REFUSED.keys()
    assert not {name for name in undescribed if "moe" in name or "mamba" in name or "vl" in name}
    file = write(tmp_path / "tiny.gguf", "llama", made("llama", layers=1))
    data = file.read_bytes()
    for kind, why in (("mamba", "a state-space"), ("dbrx", "a mixture of experts"), ("plamo", "")):
        size = len(kind).to_bytes(8, "little")
        changed = data.replace((5).to_bytes(8, "little") + b"llama", size + kind.encode(), 1)
        file.write_bytes(changed)
        with pytest.raises(FormatError, match=rf"general\.architecture among llama, .*, found '{kind}'(, {why}|$)"):
            Checkpoint.open(file)


@pytest.mark.parametrize("name", ROWS)
def test_sizes_that_contradict_the_tensors_are_refused(name: str, tmp_path: Path) -> None:
    model = made(name, layers=1)
    small = {"embedding_length": 32, "feed_forward_length": 128, "attention.head_count": 3, "block_count": 2}
    for key, value in small.items():
        file = write(tmp_path / "tiny.gguf", name, model, values={key: value})
        with pytest.raises(FormatError, match=r"expected"):
            load(file, device="cpu")


@pytest.mark.parametrize("count", [319, 321])
def test_a_vocabulary_of_another_length_than_the_table_is_refused(count: int, tmp_path: Path) -> None:
    values = {"tokenizer.ggml.tokens": [f"w{token}" for token in range(count)]}
    file = write(tmp_path / "tiny.gguf", "llama", made("llama", layers=1), values=values)
    with pytest.raises(FormatError, match=rf"a token for each of 320 rows of token_embd.weight, found {count}"):
        Checkpoint.open(file)


@pytest.mark.parametrize("name", ["gemma3", "falcon", "bert"])
def test_a_file_cut_anywhere_is_refused(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf", name, made(name, width=16, layers=1))
    data = file.read_bytes()
    for size in (4, 100, 1000, 3000, len(data) // 2, len(data) - 33):
        file.write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"truncated or damaged|expected a GGUF file"):
            Checkpoint.open(file)


def test_norms_with_one_added_keep_the_bytes_of_what_did_not_move(tmp_path: Path) -> None:
    """Adding 1 again rounds small weights; only those that moved are written."""
    model: Any = made("gemma", layers=1)
    norm = model.model.norm.weight
    with torch.no_grad():
        norm.copy_(torch.linspace(-1.0, 1e-7, len(norm)))
    file = write(tmp_path / "tiny.gguf", "gemma", model)
    ckpt, name = Checkpoint.open(file), "model.norm.weight"
    weight = ckpt.read(name)
    weight[5] += 0.25
    saved = ckpt.save_patched(tmp_path / "saved", {name: weight})
    before, after = file.read_bytes(), (saved.path / file.name).read_bytes()
    start = ckpt.info[name].start
    assert {(place - start) // 4 for place in range(len(before)) if before[place] != after[place]} == {5}
    assert abs(float(Checkpoint.open(saved.path).read(name)[5] - weight[5])) < 1e-7


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_a_quantized_embedding_is_scaled_and_its_tied_head_is_not(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf", name, made(name, layers=1), (gguf.GGMLQuantizationType.Q8_0,))
    model: Any = load(file, device="cpu", kernel="reference")
    embedding = model.model.embed_tokens
    assert isinstance(embedding, QuantEmbedding) and model.lm_head is embedding.table
    assert torch.allclose(embedding(IDS), embedding.table.dequantise()[IDS] * 64**0.5)


def test_a_matrix_of_queries_keys_and_values_is_three(tmp_path: Path) -> None:
    """As old files of Phi 2 store them."""
    model = made("phi2", layers=1)
    apart = write(tmp_path / "apart.gguf", "phi2", model)
    fused = {"blk.0.attn_qkv." + own: [f"blk.0.attn_{part}.{own}" for part in "qkv"] for own in ("weight", "bias")}
    together = write(tmp_path / "together.gguf", "phi2", model, fused=fused)
    assert torch.equal(outputs(load(apart, device="cpu")), outputs(load(together, device="cpu")))
    ckpt = Checkpoint.open(together)
    saved = ckpt.save_patched(tmp_path / "saved", {tensor: ckpt.read(tensor) for tensor in ckpt.info})
    assert (saved.path / together.name).read_bytes() == together.read_bytes()
