"""GGUF: headers that cannot be, fields that are all of a file, rows and rotations, embeddings, vocabularies."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf import header as _gguf_header
from forq.checkpoints.containers.gguf.kinds import BLOCKS, FLOATS
from forq.coordinates.leaf import SparseCodes
from forq.errors import FormatError
from forq.layers.embedding import QuantEmbedding
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.skeleton import compute_buffers, skeleton
from tests.fixtures import gguf
from tests.fixtures.gguf_write import write_gguf

IDS = torch.tensor([[1, 5, 9, 2, 40, 33, 5, 63]])
TIED = ("q8_0", "five", "k", "iq4")
Tensors = list[tuple[str, int, tuple[int, ...], torch.Tensor]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return gguf.example(tmp_path / "example")


def held(path: Path) -> tuple[dict[str, Any], Tensors]:
    """A file's values and tensors, the latter as bytes."""
    header, data = _gguf_header.read(path), bytearray(path.read_bytes())
    found: Tensors = []
    for one in header.tensors:
        name, kind, shape, start = one.name, one.kind, one.shape, one.start
        count = math.prod(shape)
        block = BLOCKS.get(kind)
        nbytes = count * FLOATS[kind].itemsize if block is None else count // block.size * block.nbytes
        found.append((name, kind, shape, torch.frombuffer(data, dtype=torch.uint8, offset=start, count=nbytes).clone()))
    return header.values, found


def again(path: Path, change: Callable[[dict[str, Any], Tensors], None]) -> Path:
    """The file written anew with its values and tensors changed."""
    values, tensors = held(path)
    change(values, tensors)
    write_gguf(path, values, tensors)
    return path


def test_what_is_written_anew_unchanged_is_the_same_file(file: Path) -> None:
    before = file.read_bytes()
    assert again(file, lambda values, tensors: None).read_bytes() == before


@pytest.mark.parametrize("variant", [None, *gguf.VARIANTS])
def test_the_fields_are_every_byte_of_the_tensors_once(variant: str | None, tmp_path: Path) -> None:
    path = gguf.example(tmp_path / "a", **gguf.VARIANTS[variant] if variant else {})
    seen = torch.zeros(path.stat().st_size, 8, dtype=torch.int32)
    for info in Checkpoint.open(path).info.values():
        for start in range(info.start, info.start + info.span, info.pitch or info.nbytes):
            mask = info.mask or b"\xff" * (info.piece or info.nbytes)
            bits = torch.tensor(list(mask))[:, None] >> torch.arange(8) & 1
            seen[start : start + len(mask)] += bits.int()
    first = min(info.start for info in Checkpoint.open(path).info.values())
    want = 8 * sum(tensor.nbytes for *_, tensor in held(path)[1])
    assert int(seen.max()) == 1 and int(seen.sum()) == want and not seen[:first].any()


def swapped(data: bytearray) -> None:
    data[4:8] = data[4:8][::-1]


def old(data: bytearray) -> None:
    data[4] = 1


def many(data: bytearray) -> None:
    data[8:16] = struct.pack("<Q", 1 << 60)


def long(data: bytearray) -> None:
    data[24:32] = struct.pack("<Q", 1 << 62)


def cut(data: bytearray) -> None:
    del data[-100:]


def short(data: bytearray) -> None:
    del data[20:]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (swapped, "it is big-endian"),
        (old, "version 2 or 3, found 1"),
        (many, "no more tensors than"),
        (long, "truncated or damaged"),
        (cut, "truncated or damaged"),
        (short, "expected a GGUF file"),
        (lambda data: data.__setitem__(0, 0), "begins with GGUF"),
    ],
)
def test_a_header_that_cannot_be_is_refused(file: Path, damage: Callable[[bytearray], None], said: str) -> None:
    data = bytearray(file.read_bytes())
    damage(data)
    file.write_bytes(data)
    with pytest.raises(FormatError, match=said):
        Checkpoint.open(file)


def value(key: str, new: Any) -> Callable[[dict[str, Any], Tensors], None]:
    return lambda values, tensors: values.__setitem__(key, new)


def other_type(values: dict[str, Any], tensors: Tensors) -> None:
    name, _, shape, raw = tensors[1]
    tensors[1] = name, 41, shape, raw


def powers_of_two(values: dict[str, Any], tensors: Tensors) -> None:
    name, _, shape, raw = tensors[1]
    tensors[1] = name, 39, shape, raw


def half_block(values: dict[str, Any], tensors: Tensors) -> None:
    name, kind, (rows, columns), raw = tensors[1]
    tensors[1] = name, kind, (rows * 2, columns // 2), raw


def into_the_next(values: dict[str, Any], tensors: Tensors) -> None:
    name, kind, (rows, columns), raw = tensors[1]
    tensors[1] = name, kind, (rows * 4, columns), raw


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (value("general.architecture", "mamba"), "general.architecture among llama, qwen2, qwen3"),
        (value("llama.expert_count", 8), "without experts"),
        (value("split.count", 3), r"a name that ends in -00001-of-00003\.gguf"),
        (value("split.count", 1 << 20), "a number of files in split.count"),
        (value("llama.block_count", 1 << 20), "tensors, one a layer"),
        (value("llama.embedding_length", 64), "expected"),
        (value("llama.attention.head_count", 3), "rows of 3 heads"),
        (value("llama.attention.layer_norm_rms_epsilon", -1.0), "a positive number"),
        (value("llama.rope.scaling.type", "longrope"), "none, linear or yarn"),
        (value("general.alignment", 0), "an alignment"),
        (value("general.alignment", 3), "expected"),
        (lambda values, tensors: values.pop("llama.embedding_length"), "a whole number for llama.embedding_length"),
        (lambda values, tensors: tensors.append(tensors[0]), "different names"),
        (lambda values, tensors: tensors.pop(), "missing: model.norm.weight"),
        (other_type, "a type among F32, F16, BF16, Q4_0"),
        (powers_of_two, "MXFP4, whose block scales are powers of two"),
        (half_block, "whole blocks of 32"),
        (into_the_next, "expected it to end by byte"),
    ],
)
def test_what_contradicts_itself_is_refused(
    file: Path, change: Callable[[dict[str, Any], Tensors], None], said: str
) -> None:
    with pytest.raises(FormatError, match=said):
        load(again(file, change), device="cpu")


@pytest.mark.parametrize("variant", (*TIED, "ternary"))
def test_a_tied_head_is_the_embedding_and_one_leaf(variant: str, tmp_path: Path) -> None:
    model: Any = load(gguf.example(tmp_path / "a", **gguf.VARIANTS[variant]), device="cpu")
    embedding = model.model.embed_tokens
    assert isinstance(embedding, QuantEmbedding) and model.lm_head is embedding.table
    names = [leaf.name for leaf in trainable(model)]
    assert len(set(names)) == len(names) and "model.embed_tokens.weight.d" in names
    assert torch.equal(embedding(IDS), embedding.table.dequantise()[IDS])
    before = model(IDS).logits
    (leaf,) = (leaf for leaf in trainable(model) if leaf.name == "model.embed_tokens.weight.d")
    leaf.write(leaf.read() * 1.5)
    x = torch.randn(3, embedding.embedding_dim)
    assert torch.equal(embedding(IDS), embedding.table.dequantise()[IDS])
    assert torch.allclose(model.lm_head(x), x @ embedding.table.dequantise().T, atol=1e-5)
    assert not torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize("variant", TIED)
def test_codes_of_a_tied_embedding_move_in_both_places_and_are_saved(variant: str, tmp_path: Path) -> None:
    model: Any = load(gguf.example(tmp_path / "a", **gguf.VARIANTS[variant]), device="cpu")
    (leaf,) = (leaf for leaf in trainable(model, "codes") if leaf.name == "model.embed_tokens.weight.qs")
    count = math.prod(leaf.shape)
    codes = leaf.take(0, count)
    leaf.put(0, leaf.range[1] - codes)
    embedding = model.model.embed_tokens
    assert torch.equal(embedding(IDS), embedding.table.dequantise()[IDS])
    model.checkpoint.save_patched(tmp_path / "out", {leaf.name: leaf.packed(leaf.storage)})
    fresh: Any = load(tmp_path / "out", device="cpu")
    assert torch.equal(fresh(IDS).logits, model(IDS).logits)
    before, after = held(tmp_path / "a" / "tiny.gguf")[1], held(tmp_path / "out" / "tiny.gguf")[1]
    assert [a[0] for a, b in zip(before, after, strict=True) if not torch.equal(a[3], b[3])] == ["token_embd.weight"]


def floats(config: Any, model: Any, path: Path, **more: Any) -> Path:
    """A float model of transformers as a GGUF of float32 tensors, rows interleaved as llama.cpp rotates them."""
    turn = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    parts = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    parts |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    parts |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    tensors: Tensors = []
    for name, tensor in model.state_dict().items():
        outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
        head, last = name.rpartition(".")[0], name.split(".")[-2]
        own = outside[head] if head in outside else f"blk.{name.split('.')[2]}.{parts[last]}"
        if last in turn:
            tensor = tensor.view(turn[last], 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        tensors.append((f"{own}.weight", 0, tuple(tensor.shape), tensor.contiguous()))
    if "factors" in more:
        factors = more.pop("factors")
        tensors.append(("rope_freqs.weight", 0, tuple(factors.shape), factors))
    values = {
        "general.architecture": "llama",
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.freq_base": 10000.0,
    }
    write_gguf(path, {**values, **{f"llama.rope.scaling.{key}": told for key, told in more.items()}}, tensors)
    return path


ROPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({"rope_type": "default"}, {}),
    "linear": ({"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0}),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {"type": "yarn", "factor": 4.0, "original_context_length": 16},
    ),
    "llama3": (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        {"factors": torch.empty(0)},
    ),
}


@pytest.mark.parametrize("rope", ROPES)
def test_positions_are_transformers(rope: str, tmp_path: Path) -> None:
    theirs, ours = ROPES[rope]
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"intermediate_size": 48, "vocab_size": 64, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}
    told = {**theirs, "rope_theta": 10000.0}
    config = AutoConfig.for_model("llama", **sizes, rope_parameters=told, tie_word_embeddings=False)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(1 if tensor.ndim == 1 else 6)
    if rope == "llama3":  # what llama.cpp's converter writes: plain frequencies by llama3's
        plain = skeleton({**sizes, "model_type": "llama", "rope_theta": 10000.0}, torch.float32)
        compute_buffers(plain, torch.device("cpu"))
        factors = plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq  # type: ignore[union-attr]
        assert len(factors.unique()) > 1
        ours = {"factors": factors}
    path = floats(config, model, tmp_path / "model.gguf", **ours)
    ids = torch.randint(0, 64, (2, 60), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = model(ids).logits
    assert (load(path, device="cpu")(ids).logits - want).abs().max() < 2e-5 * want.abs().max()


def test_factors_of_another_number_or_sign_are_refused(tmp_path: Path, file: Path) -> None:
    for factors in (torch.ones(3), torch.tensor([1.0, 0.0, 1.0, 1.0])):
        changed = again(file, lambda _, tensors, f=factors: tensors.append(("rope_freqs.weight", 0, tuple(f.shape), f)))
        with pytest.raises(FormatError, match="positive factors, found"):
            load(changed, device="cpu")
        again(file, lambda _, tensors: tensors.pop())


def test_two_files_in_one_folder_must_be_told_apart(file: Path) -> None:
    (file.parent / "other.gguf").write_bytes(file.read_bytes())
    with pytest.raises(FormatError, match=r"other\.gguf, tiny\.gguf; name one"):
        Checkpoint.open(file.parent)
    model = load(file, device="cpu")
    out = file.parent / "out"
    model.checkpoint.save_patched(out, {leaf.name: leaf.read() for leaf in trainable(model)})
    assert [path.name for path in out.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize("variant", TIED)
def test_single_codes_of_a_tied_embedding_are_shown_in_both_places(variant: str, tmp_path: Path) -> None:
    model: Any = load(gguf.example(tmp_path / "a", **gguf.VARIANTS[variant]), device="cpu")
    (leaf,) = (leaf for leaf in trainable(model, "codes") if leaf.name == "model.embed_tokens.weight.qs")
    before = model(IDS).logits
    # Rows 5 and 40 are asked for, 6 is not.
    width, top = leaf.shape[1], leaf.range[1]
    places = torch.tensor([5 * width + 3, 6 * width, 41 * width - 1])
    codes = SparseCodes(places, top - leaf.at(places))
    leaf.sparse = codes
    shown, head = model(IDS).logits, model.lm_head(torch.eye(width))
    assert not torch.equal(shown, before)
    leaf.sparse = None
    assert torch.equal(model(IDS).logits, before)
    leaf.put_at(codes)
    assert torch.equal(model(IDS).logits, shown) and torch.equal(model.lm_head(torch.eye(width)), head)
