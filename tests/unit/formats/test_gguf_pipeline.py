"""Stable Diffusion 3's transformer in a GGUF file: diffusers computes what we do, and every byte has one place."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers import GGUFQuantizationConfig
from diffusers.quantizers.gguf import utils as theirs

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf import header as _gguf_header
from forq.checkpoints.containers.gguf.kinds import BLOCKS, FLOATS
from forq.errors import FormatError
from forq.layers.linear import QuantLinear
from forq.models.diffusion.denoiser import library
from forq.models.leaves import trainable
from forq.models.load import load
from tests import tiny_pipeline
from tests.fixtures.gguf_write import write_gguf

KINDS = ("Q4_0", "Q8_0")
SD3: dict[str, Any] = {"qk_norm": None}
SD35: dict[str, Any] = {"dual_attention_layers": (0,)}


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> Path:
    return tiny_pipeline.transformer(tmp_path_factory.mktemp("floats") / "sd3", **SD35)


@pytest.fixture(scope="module")
def made(floats, tmp_path_factory) -> Path:
    return tiny_pipeline.in_gguf(floats, tmp_path_factory.mktemp("gguf") / "sd3")


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "sd3"))


def file_of(folder: Path) -> Path:
    return folder / "transformer" / "transformer.gguf"


def answer(model: Any) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return model(
            hidden_states=torch.randn(2, 1, 28, 28, generator=draw),
            encoder_hidden_states=torch.randn(2, 3, 64, generator=draw),
            pooled_projections=torch.randn(2, 64, generator=draw),
            timestep=torch.tensor([20.0, 700.0]),
        ).sample


def by_diffusers(folder: Path) -> Any:
    made = library().SD3Transformer2DModel
    told = GGUFQuantizationConfig(compute_dtype=torch.float32)
    name = str(next((folder / "transformer").glob("*.gguf")))
    return made.from_single_file(name, config=str(folder), subfolder="transformer", quantization_config=told)


def in_float32(tensor: Any) -> torch.Tensor:
    """A matrix as gguf-py has it; diffusers rounds its weights to float16."""
    return torch.from_numpy(gguf.dequantize(tensor.as_tensor().numpy(), tensor.quant_type))


@pytest.mark.parametrize(("shape", "kind"), [(SD3, "Q8_0"), (SD35, "Q4_0")], ids=["sd3-q8_0", "sd3.5-q4_0"])
def test_diffusers_computes_what_we_do_before_and_after_a_move(shape, kind, tmp_path, monkeypatch) -> None:
    source = tiny_pipeline.transformer(tmp_path / "floats", **shape)
    before, after = tiny_pipeline.in_gguf(source, tmp_path / "before", kind), tmp_path / "after"
    model: Any = load(before, device="cpu")
    quantized = [name for name, module in model.named_modules() if isinstance(module, QuantLinear)]
    assert len(quantized) == sum(isinstance(m, torch.nn.Linear) for m in by_diffusers(before).modules())
    draw = torch.Generator().manual_seed(2)
    moved = {leaf.name: leaf.read() * (1 + 0.05 * torch.randn(leaf.shape, generator=draw)) for leaf in trainable(model)}
    assert len(moved) == len(quantized) and all(name.endswith(".weight.d") for name in moved)
    model.checkpoint.save_patched(after, moved)
    found = []
    for folder in (before, after):
        ours, other = load(folder, device="cpu"), by_diffusers(folder)
        for name in quantized:
            want = theirs.dequantize_gguf_tensor(other.get_submodule(name).weight)
            assert torch.equal(ours.get_submodule(name).dequantise().half(), want), name
        found.append(answer(ours))
        assert (found[-1] - answer(other)).abs().max() < 1e-3 * found[-1].abs().max()
        with monkeypatch.context() as patched:
            patched.setattr(theirs, "dequantize_gguf_tensor", in_float32)
            assert (found[-1] - answer(other)).abs().max() < 2e-5 * found[-1].abs().max()
    assert (found[0] - found[1]).abs().max() > 0.01


def places(info: Any) -> set[int]:
    """The bytes of a file that are a tensor's."""
    length = info.piece or info.nbytes
    return {
        at for start in range(info.start, info.start + info.span, info.pitch or info.nbytes)
        for at in range(start, start + length)
    }  # fmt: skip


def test_every_byte_of_every_tensor_has_one_place(made) -> None:
    seen: list[int] = []
    for info in Checkpoint.open(made).info.values():
        seen += places(info)
    count = 0
    for one in _gguf_header.read(file_of(made)).tensors:
        block = BLOCKS.get(one.kind)
        each = FLOATS[one.kind].itemsize if block is None else block.nbytes / block.size
        count += int(math.prod(one.shape) * each)
    assert len(seen) == len(set(seen)) == count


def test_writing_what_was_read_changes_no_byte_and_a_move_only_its_own(made, tmp_path) -> None:
    ckpt = Checkpoint.open(made)
    ckpt.save_patched(tmp_path / "same", {name: ckpt.read(name) for name in ckpt.info})
    old = file_of(made).read_bytes()
    assert file_of(tmp_path / "same").read_bytes() == old
    names = [
        "norm_out.linear.weight.d", "norm_out.linear.bias", "transformer_blocks.1.norm1_context.linear.weight.d",
        "transformer_blocks.0.attn.to_k.weight.d", "transformer_blocks.0.attn2.to_v.bias",
    ]  # fmt: skip
    for name in names:
        info, tensor = ckpt.info[name], ckpt.read(name)
        tensor[-1] = tensor[-1] * 1.5 + 1
        out = tmp_path / name
        ckpt.save_patched(out, {name: tensor})
        new = file_of(out).read_bytes()
        changed = {at for at in range(len(old)) if old[at] != new[at]}
        assert changed and changed <= places(info)
        assert torch.equal(Checkpoint.open(out).read(name), tensor)
        assert (out / "transformer" / "config.json").read_bytes() == (made / "transformer" / "config.json").read_bytes()


@pytest.mark.parametrize("kind", [*KINDS, "Q4_1", "Q5_0", "Q5_1"])
def test_codes_move_and_are_saved(kind, floats, tmp_path) -> None:
    made = tiny_pipeline.in_gguf(floats, tmp_path / "made", kind)
    model: Any = load(made, device="cpu", kernel="reference")
    name = "transformer_blocks.0.attn.to_k.weight.qs"
    (leaf,) = (leaf for leaf in trainable(model, "codes") if leaf.name == name)
    leaf.put(0, leaf.take(0, 128) ^ 1)
    model.checkpoint.save_patched(tmp_path / "out", {name: leaf.packed(leaf.storage)})
    old, new = (file_of(one).read_bytes() for one in (made, tmp_path / "out"))
    changed = {at for at in range(len(old)) if old[at] != new[at]}
    assert changed and changed <= places(model.checkpoint.info[name])
    assert torch.equal(answer(load(tmp_path / "out", device="cpu", kernel="reference")), answer(model))


Shape = tuple[int, ...]


def rewritten(folder: Path, change: Callable[[str, Shape], tuple[str, Shape]], **values: Any) -> None:
    """The file written anew, with names and shapes changed."""
    path = file_of(folder)
    data, header = bytearray(path.read_bytes()), _gguf_header.read(path)
    tensors = []
    for one in header.tensors:
        block = BLOCKS.get(one.kind)
        each = FLOATS[one.kind].itemsize if block is None else block.nbytes / block.size
        raw = torch.frombuffer(data, dtype=torch.uint8, offset=one.start, count=int(math.prod(one.shape) * each))
        name, shape = change(one.name, one.shape)
        tensors.append((name, one.kind, shape, raw.clone()))
    told = {key: value for key, value in {**header.values, **values}.items() if value is not None}
    write_gguf(path, told, tensors)


def test_names_and_shapes_other_writers_use_are_the_same_model(made, folder) -> None:
    def other(name: str, shape: Shape) -> tuple[str, Shape]:
        if name == "pos_embed":
            shape = shape[1:]
        if name == "x_embedder.proj.weight":
            shape = (shape[0], math.prod(shape[1:]))
        return f"model.diffusion_model.{name}", shape

    rewritten(folder, other, **{"general.architecture": None})
    assert torch.equal(answer(load(folder, device="cpu")), answer(load(made, device="cpu")))


def test_diffusers_own_names_are_read_too(floats, tmp_path) -> None:
    folder = shutil.copytree(floats, tmp_path / "sd3")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    ckpt = Checkpoint.open(floats)
    held = [(name, 0, info.shape, ckpt.read(name)) for name, info in ckpt.info.items()]
    write_gguf(file_of(folder), {"general.architecture": "sd3"}, held)
    assert torch.equal(answer(load(folder, device="cpu")), answer(load(floats, device="cpu")))


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "transformer" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def reshaped(end: str, rows: int) -> Callable[[Path], None]:
    def change(name: str, shape: Shape) -> tuple[str, Shape]:
        return name, (rows, shape[0] // rows) if name.endswith(end) else shape

    return lambda folder: rewritten(folder, change)


def beside(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "transformer" / name).write_bytes(file_of(folder).read_bytes()) and None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (beside("other.gguf"), r"found other\.gguf, transformer\.gguf: keep one"),
        (beside("diffusion_pytorch_model.safetensors"), "diffusion_pytorch_model.safetensors: keep one"),
        (lambda folder: rewritten(folder, lambda *one: one, **{"general.architecture": "flux"}), "sd3, found 'flux'"),
        (lambda folder: rewritten(folder, lambda name, shape: (name.replace("ln_q", "q"), shape)), "missing: "),
        (reshaped("attn.qkv.bias", 2), "in 3 equal parts, found 2"),
        (reshaped("final_layer.adaLN_modulation.1.bias", 1), "in 2 equal parts, found 1"),
        (reshaped("mlp.fc1.bias", 2), "expected floats of shape"),
        (lambda folder: file_of(folder).write_bytes(file_of(folder).read_bytes()[:-4000]), "truncated or damaged"),
        (config(num_layers=3), "missing: transformer_blocks.1"),
        (config(num_layers=1), "transformer_blocks.* found none of that name"),
        (config(num_layers=1 << 40), "at least one tensor for each of"),
        (config(num_layers="2"), "expected"),
        (config(in_channels=3), "expected floats of shape"),
        (config(pos_embed_max_size=9), "expected floats of shape"),
        (config(qk_norm=None), "unexpected: transformer_blocks.0.attn.norm_added_k.weight"),
        (config(dual_attention_layers=[]), "attn2.* config.json describes, found none of that name"),
        (config(attention_head_dim=64, caption_projection_dim=128), "by config.json, found"),
    ],
)
def test_what_contradicts_itself_is_refused(damage, said, folder) -> None:
    damage(folder)
    with pytest.raises(FormatError, match=said):
        load(folder, device="cpu")


def test_a_file_alone_says_where_it_belongs(folder) -> None:
    with pytest.raises(FormatError, match=r"put it in PIPELINE/transformer/ instead of the safetensors"):
        Checkpoint.open(file_of(folder))
