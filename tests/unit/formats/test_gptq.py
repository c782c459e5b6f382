"""GPTQ: its words in both directions, and every way a file can contradict its settings."""

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
from forq.formats.codecs import gptq_write
from forq.formats.codecs.gptq_version import version
from forq.formats.codecs.gptq_words import pack_codes, pack_zeros, unpack_codes, unpack_zeros
from forq.formats.gptq import format as gptq
from forq.layers.codes import BITS, pack, unpack
from forq.layers.weight import QuantWeight, zeros_dtype
from forq.models.load import load
from tests.fixtures.gptq import example
from tests.reference.gptq import cut

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
    word = sum(value << 4 * place for place, value in enumerate(range(8)))
    codes = unpack_codes(torch.tensor([[word, 0]], dtype=torch.int32))
    assert codes.tolist() == [[1 << 4 | 0, 3 << 4 | 2, 5 << 4 | 4, 7 << 4 | 6], [0, 0, 0, 0]]


@pytest.mark.parametrize(("offset", "want"), [(0, 7), (1, 8)])
def test_version_1_stores_a_zero_less_one(offset: int, want: int) -> None:
    assert unpack_zeros(torch.tensor([[0x77777777]], dtype=torch.int32), offset).unique().tolist() == [want]


@given(st.sampled_from(BITS), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_words_come_back(bits: int, words: int, rows: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    whole = torch.randint(0, 1 << bits, (rows, 32 * words), dtype=torch.uint8, generator=draw)
    codes = pack(whole, bits)
    assert codes.shape == (rows, 4 * words * bits) and torch.equal(unpack(codes, bits), whole)
    stored = pack_codes(codes, bits)
    assert torch.equal(unpack_codes(stored, bits), codes)
    assert [cut(column, bits) for column in stored.t().numpy()] == whole.tolist()
    zeros = torch.randint(1, 1 << bits, (words, 32 * rows), generator=draw).to(zeros_dtype(bits))
    for offset in (0, 1):
        packed = pack_zeros(zeros, offset, bits)
        assert torch.equal(unpack_zeros(packed, offset, bits), zeros)
        assert [cut(row, bits) for row in packed.numpy()] == (zeros - offset).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scales_of_every_float_dtype_are_read(folder: Path, dtype: torch.dtype) -> None:
    name = f"{Q}.scales"
    stored = Checkpoint.open(folder).read(name).to(dtype)
    ckpt = rewritten(folder, {name: stored})
    spec = gptq.layers(ckpt)[Q]
    assert spec.live[0].dtype == dtype and torch.equal(gptq.read(ckpt, spec).live[0], stored)


def test_older_files_keep_their_settings_in_a_file_of_their_own(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    how = config.pop("quantization_config")
    del how["quant_method"], how["checkpoint_format"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "quantize_config.json").write_text(json.dumps(how))
    ckpt = Checkpoint.open(folder)
    assert gptq.recognise(ckpt) and gptq.layers(ckpt)[Q].group_size == 16


def symmetric(folder: Path, bits: int, stored_as: str, said: str, **settings: Any) -> Checkpoint:
    """An example whose zero points are all the middle, stored as one version and declared as another."""
    example(folder, bits=bits, group_size=-1, checkpoint_format="gptq_v2")
    ckpt = configured(folder, sym=True, checkpoint_format=said, **settings)
    offset = {"gptq": 1, "gptq_v2": 0}[stored_as]
    zeros = {}
    for name, spec in gptq.layers(ckpt).items():
        middle = torch.full((1, spec.out_features), 1 << bits - 1, dtype=zeros_dtype(bits))
        zeros[f"{name}.qzeros"] = pack_zeros(middle, offset, bits)
    return rewritten(folder, zeros)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("stored_as", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("said", ["gptq", "gptq_v2"])
def test_symmetric_zero_points_show_the_version_that_stored_them(
    tmp_path: Path, bits: int, stored_as: str, said: str
) -> None:
    ckpt = symmetric(tmp_path / "a", bits, stored_as, said)
    assert version(ckpt).form == stored_as
    for spec in gptq.layers(ckpt).values():
        weight = gptq.read(ckpt, spec).weight
        assert isinstance(weight, QuantWeight) and weight.zero == 1 << bits - 1
        # A save that moved nothing writes the bytes that were there.
        points = gptq.zero_points(ckpt, spec)
        assert torch.equal(points.packed(weight.zeros), ckpt.read(points.name))
    told = gptq.unlike(ckpt)
    assert bool(told) is (stored_as != said) and all(f"reads this file as {stored_as}" in one for one in told)


def test_words_of_eights_under_version_1_are_version_2(tmp_path: Path) -> None:
    ckpt = symmetric(tmp_path / "a", 4, "gptq_v2", "gptq")
    assert set(ckpt.read(f"{Q}.qzeros").view(-1).tolist()) == {0x88888888 - (1 << 32)}
    assert "checkpoint_format 'gptq' and sym" in load(tmp_path / "a", device="cpu").unlike[0]


def test_an_asymmetric_file_is_read_as_it_says(tmp_path: Path) -> None:
    symmetric(tmp_path / "a", 4, "gptq_v2", "gptq")
    ckpt = configured(tmp_path / "a", sym=False)
    assert version(ckpt).form == "gptq" and gptq.unlike(ckpt) == ()
    weight = gptq.read(ckpt, gptq.layers(ckpt)[Q]).weight
    assert isinstance(weight, QuantWeight) and weight.zero == 9


@pytest.mark.parametrize("sym", [True, None])
def test_where_no_version_gives_the_middle_the_file_is_read_as_it_says(tmp_path: Path, sym: bool | None) -> None:
    ckpt = symmetric(tmp_path / "a", 4, "gptq_v2", "gptq")
    name = f"{Q}.qzeros"
    moved = ckpt.read(name)
    moved[0, 0] -= 1
    rewritten(tmp_path / "a", {name: moved})
    ckpt = configured(tmp_path / "a", sym=sym)
    assert version(ckpt).form == "gptq"
    # Without a word on symmetry nothing is contradicted.
    assert ["zero points other than 8 are stored" in one for one in gptq.unlike(ckpt)] == ([True] if sym else [])


def test_a_missing_or_consecutive_g_idx_means_consecutive_groups(folder: Path) -> None:
    ckpt = Checkpoint.open(folder)
    assert gptq.read(ckpt, gptq.layers(ckpt)[Q]).weight.group_of is None
    ckpt = rewritten(folder, {f"{Q}.g_idx": None})
    assert gptq.read(ckpt, gptq.layers(ckpt)[Q]).weight.group_of is None


def test_act_order_is_read(folder: Path) -> None:
    group_of = torch.tensor([1, 0] * 16, dtype=torch.int32)
    ckpt = rewritten(folder, {f"{Q}.g_idx": group_of})
    found = gptq.read(ckpt, gptq.layers(ckpt)[Q]).weight.group_of
    assert found is not None and torch.equal(found, group_of)


def test_zeros_alone_are_no_g_idx(folder: Path) -> None:
    consecutive = load(folder, "cpu").state_dict()
    ckpt = rewritten(folder, {f"{Q}.g_idx": torch.zeros(32, dtype=torch.int32)})
    assert gptq.read(ckpt, gptq.layers(ckpt)[Q]).weight.group_of is None
    assert [f"g_idx of {Q} holds zeros alone" in one for one in gptq.unlike(ckpt)] == [True]
    model = load(folder, "cpu")
    assert all(torch.equal(value, consecutive[name]) for name, value in model.state_dict().items())
    assert any("consecutive inputs" in one for one in model.unlike)


def test_in_a_single_group_zeros_say_nothing(tmp_path: Path) -> None:
    ckpt = Checkpoint.open(example(tmp_path / "row", group_size=-1))
    assert not ckpt.read(f"{Q}.g_idx").any() and gptq.unlike(ckpt) == ()


@pytest.mark.parametrize("desc_act", [True, False])
def test_an_order_that_the_settings_deny_is_followed_and_said(desc_act: bool, tmp_path: Path) -> None:
    ckpt = configured(example(tmp_path / "ordered", desc_act=True), desc_act=desc_act)
    assert gptq.read(ckpt, gptq.layers(ckpt)[Q]).weight.group_of is not None
    assert ["desc_act false" in one for one in gptq.unlike(ckpt)] == ([] if desc_act else [True])


def test_autorounds_own_name_comes_with_the_way_out(folder: Path) -> None:
    configured(folder, quant_method="auto-round")
    with pytest.raises(FormatError, match=r"quant_method 'auto-round'.*format=\"auto_gptq\""):
        load(folder, "cpu")


def test_a_group_that_does_not_exist_is_refused(folder: Path) -> None:
    ckpt = rewritten(folder, {f"{Q}.g_idx": torch.full((32,), 2, dtype=torch.int32)})
    with pytest.raises(FormatError, match=r"expected groups 0 … 1"):
        gptq.read(ckpt, gptq.layers(ckpt)[Q])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bits": 8}, "contradicts the tensors"),
        ({"bits": 3}, "contradicts the tensors"),
        ({"bits": 5}, "expected 2, 3, 4, 8 bits, found 5"),
        ({"bits": "4"}, "whole numbers"),
        ({"sym": "yes"}, "expected sym to be true or false, found 'yes'"),
        ({"bits": None}, "whole numbers"),
        ({"group_size": 0}, "positive group_size"),
        ({"group_size": 32}, "contradicts the tensors"),
        ({"group_size": -1}, "contradicts the tensors"),
        ({"checkpoint_format": "marlin"}, "repacked for another kernel"),
        ({"dynamic": {"-:.*": {}}}, "leaves .* in float, found it in integers"),
        ({"dynamic": {"-:(": {}}}, "cannot be used"),
        ({"rotation": "hadamard"}, "found rotation 'hadamard': GPTQModel turns the inputs of every down_proj"),
        ({"meta": {"rotation": "random"}}, "found rotation 'random'"),
        ({"dynamic": {"+:.*": {"bits": 8}}}, "'dynamic', which is not supported"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder: Path, settings: dict[str, Any], says: str) -> None:
    ckpt = configured(folder, **settings)
    assert gptq.recognise(ckpt)
    with pytest.raises(FormatError, match=says):
        gptq.layers(ckpt)


def renamed(folder: Path, **settings: Any) -> Checkpoint:
    """The folder, whose version is named by other keys."""
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]["checkpoint_format"]
    (folder / "config.json").write_text(json.dumps(config))
    return configured(folder, **settings)


@pytest.mark.parametrize("form", ["gptq", "gptq_v2", "GPTQ_V2"])
def test_the_version_may_stand_under_gptqmodels_own_key_alone(tmp_path: Path, form: str) -> None:
    plain = example(tmp_path / "plain", checkpoint_format=form.lower())
    want = gptq.read(Checkpoint.open(plain), gptq.layers(Checkpoint.open(plain))[Q]).weight
    ckpt = renamed(plain, format=form)
    found = gptq.read(ckpt, gptq.layers(ckpt)[Q]).weight
    assert isinstance(found, QuantWeight) and isinstance(want, QuantWeight)
    assert torch.equal(found.zeros, want.zeros) and gptq.unlike(ckpt) == ()


def test_a_layout_under_gptqmodels_own_key_is_refused_too(folder: Path) -> None:
    for ckpt in (renamed(folder, format="gptq_p"), configured(folder, checkpoint_format="gptq")):
        with pytest.raises(FormatError, match="expected format among gptq, gptq_v2, found 'gptq_p'"):
            gptq.layers(ckpt)


def test_two_keys_that_name_two_versions_are_said(folder: Path) -> None:
    assert gptq.unlike(configured(folder, format="gptq")) == ()
    (said,) = gptq.unlike(configured(folder, format="gptq_v2"))
    assert "checkpoint_format 'gptq' and format 'gptq_v2'" in said
    assert version(Checkpoint.open(folder)).form == "gptq"


def test_moved_zero_points_of_a_mended_version_are_saved_under_both_keys(tmp_path: Path) -> None:
    """GPTQModel reads ``format`` before ``checkpoint_format``."""
    symmetric(tmp_path / "a", 4, "gptq_v2", "gptq")
    ckpt = configured(tmp_path / "a", format="gptq")
    name = f"{Q}.qzeros"
    written = gptq.relaid(ckpt, {name: ckpt.read(name) + 1}).config
    assert written is not None
    how = written["quantization_config"]
    assert (how["format"], how["checkpoint_format"], how["sym"]) == ("gptq_v2", "gptq_v2", False)


def test_an_older_file_beside_that_says_something_else_is_told_of(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    (folder / "quantize_config.json").write_text(json.dumps(config))
    assert gptq.unlike(Checkpoint.open(folder)) == ()
    (folder / "quantize_config.json").write_text(json.dumps({**config, "checkpoint_format": "gptq_v2", "sym": True}))
    (said,) = gptq.unlike(Checkpoint.open(folder))
    assert "quantize_config.json says sym True, checkpoint_format 'gptq_v2', and config.json sym False" in said


@pytest.mark.parametrize("asked", ["w4afp8", {"mode": "w4a_nvfp4", "recipe": "nvidia"}])
def test_inputs_that_gptqmodel_rounds_are_told_of(folder: Path, asked: Any) -> None:
    (said,) = gptq.unlike(configured(folder, activation=asked))
    assert "round their inputs to w4a" in said and "GPTQModel" in said


def test_an_adapter_that_is_left_out_is_said(folder: Path) -> None:
    assert gptq.unlike(configured(folder, adapter=None, rotation=None)) == ()
    (said,) = gptq.unlike(configured(folder, adapter={"name": "lora", "path": "eora", "rank": 32}))
    assert "names an adapter" in said and "--adapter" in said


@pytest.mark.parametrize(
    ("kind", "tensor", "says"),
    [
        ("scales", None, "expected a tensor 'scales'"),
        ("qzeros", None, "expected a tensor 'qzeros'"),
        ("scales", torch.zeros(2, 31, dtype=torch.float16), "contradicts the tensors"),
        ("scales", torch.zeros(2, 32, dtype=torch.int32), "contradicts the tensors"),
        ("qzeros", torch.zeros(3, 4, dtype=torch.int32), "contradicts the tensors"),
        ("qweight", torch.zeros(8, 32, dtype=torch.int32), "contradicts the tensors"),
        ("qweight", torch.zeros(4, 28, dtype=torch.int32), "multiple of 8 inputs and outputs"),
        ("qweight", torch.zeros(0, 32, dtype=torch.int32), "expected a matrix"),
        ("g_idx", torch.zeros(31, dtype=torch.int32), "contradicts the tensors"),
        ("bias", torch.zeros(31), "contradicts the tensors"),
    ],
)
def test_tensors_that_contradict_are_refused(folder: Path, kind: str, tensor: torch.Tensor | None, says: str) -> None:
    ckpt = rewritten(folder, {f"{Q}.{kind}": tensor})
    with pytest.raises(FormatError, match=says):
        gptq.layers(ckpt)


def test_other_formats_are_not_taken_for_this_one(folder: Path) -> None:
    ckpt = Checkpoint.open(folder)
    awq = {}
    for name in ckpt.info:
        module, _, kind = name.rpartition(".")
        if kind == "qweight":
            rows = ckpt.info[name].shape[1]
            awq[name] = torch.zeros(ckpt.info[name].shape[0] * 8, rows // 8, dtype=torch.int32)
            awq[f"{module}.g_idx"] = None
    assert not gptq.recognise(rewritten(folder, awq))


def test_widths_that_do_not_fill_words_cannot_be_packed() -> None:
    weight = QuantWeight(torch.zeros(12, 8, dtype=torch.uint8), torch.zeros(1, 12, dtype=torch.int8), 4, 16)
    with pytest.raises(FormatError, match="multiples of 8"):
        gptq_write.pack(weight)
