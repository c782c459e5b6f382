"""Loading: every family's logits equal transformers' own, every tensor accounted for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.errors import ConfigError, FormatError
from forq.inspection.memory import summary
from forq.layers.dense import DenseEmbedding, DenseLinear
from forq.layers.kernels.reference import dequantise
from forq.layers.linear import QuantLinear
from forq.models.convert.quantize import quantize
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.skeleton import skeleton
from forq.models.twins import with_twins
from tests import tiny_checkpoints, tiny_encoders
from tests.fixtures import gptq
from tests.tiny_checkpoints import KINDS
from tests.unit.models import test_families

IDS = tiny_checkpoints.ids()


@pytest.fixture(scope="module", params=sorted(KINDS))
def floats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.folder(tmp_path_factory.mktemp("float") / request.param, request.param)


def rewrite(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    ckpt = Checkpoint.open(folder)
    tensors = {name: ckpt.read(name) for name in ckpt.info} | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
    write_file(folder / "model.safetensors", plan, kept.items())


def test_a_float_checkpoint_gives_the_logits_of_from_pretrained(floats: Path) -> None:
    model, theirs = load(floats, device="cpu"), AutoModelForCausalLM.from_pretrained(floats)
    assert torch.equal(model(IDS).logits, theirs(IDS).logits)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert {type(m) for m in model.modules()}.isdisjoint({torch.nn.Linear, torch.nn.Embedding})


@pytest.mark.parametrize("sym", [True, False])
def test_a_quantized_checkpoint_gives_the_logits_of_the_dequantised_model(
    floats: Path, tmp_path: Path, sym: bool
) -> None:
    quantize(floats, tmp_path / "q", group_size=32, sym=sym)
    model = load(tmp_path / "q", device="cpu")
    weights = _float_tensors(floats)
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            weights[f"{name}.weight"] = dequantise(module.weight, module.scales)
    shutil.copytree(floats, tmp_path / "dense")
    rewrite(tmp_path / "dense", weights)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    want = theirs(IDS).logits
    assert (model(IDS).logits - want).abs().max() < 2e-5 * want.abs().max()
    mask = torch.ones_like(IDS)
    mask[0, :4] = 0
    left = (theirs(IDS, attention_mask=mask).logits - model(IDS, attention_mask=mask).logits)[:, -1]
    assert left.abs().max() < 2e-5 * want.abs().max()
    assert torch.equal(
        model.generate(IDS, max_new_tokens=4, do_sample=False),
        theirs.generate(IDS, max_new_tokens=4, do_sample=False),
    )


def test_the_model_says_where_it_came_from(floats: Path) -> None:
    model = load(floats, device="cpu")
    assert model.checkpoint.path == floats
    stored = set(model.checkpoint.info)
    assert set(model.names.values()) == stored
    assert set(model.names) == set(model.state_dict())


def test_the_dtype_asked_for_is_the_dtype_of_the_activations(floats: Path) -> None:
    model = load(floats, device="cpu", dtype=torch.bfloat16)
    assert model(IDS).logits.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_tied_weights_are_one_tensor_and_one_leaf(tmp_path: Path) -> None:
    for kind in ("llama-tied", "opt"):
        model = load(tiny_checkpoints.folder(tmp_path / kind, kind), device="cpu")
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        assert isinstance(head, DenseLinear) and isinstance(embedding, DenseEmbedding)
        assert head.weight is embedding.weight and head.leaf is embedding.leaf
        leaves = trainable(model, "all-float")
        assert [leaf.name for leaf in leaves] == sorted(model.checkpoint.info)


@pytest.mark.parametrize("kind", ["llama-tied", "opt", "gemma", "bert"])
def test_tied_tensors_stored_twice_are_a_single_leaf_and_saved_twice(kind: str, tmp_path: Path) -> None:
    ids = IDS % 60
    folder = _stored_twice(tmp_path / "base", kind)
    model = load(folder, device="cpu")
    before, stored = model(ids).logits.clone(), model.checkpoint
    leaves = {leaf.name: leaf for leaf in trainable(model, "all-float")}
    twins = {name: head for name in leaves for head in set(stored.info) - set(leaves) if stored.same(name, head)}
    assert twins and set(leaves) | set(twins.values()) == set(stored.info)
    moved = {name: leaves[name].read() * 1.5 + 0.1 for name in twins}
    for name, value in moved.items():
        leaves[name].write(value)
    assert not torch.equal(model(ids).logits, before)
    stored.save_patched(tmp_path / "out", with_twins(stored, moved))
    saved = load(tmp_path / "out", device="cpu")
    assert all(saved.checkpoint.same(*pair) for pair in twins.items())
    assert torch.equal(saved(ids).logits, model(ids).logits)
    kind_of = AutoModelForMaskedLM if kind == "bert" else AutoModelForCausalLM
    assert torch.equal(kind_of.from_pretrained(tmp_path / "out")(ids).logits, saved(ids).logits)
    other = next(name for name in leaves if name not in twins)
    assert set(with_twins(stored, {other: leaves[other].read()})) == {other}


def test_stored_head_and_embedding_that_differ_are_not_tied(tmp_path: Path) -> None:
    folder = _stored_twice(tmp_path / "base", "llama-tied")
    rewrite(folder, {"lm_head.weight": torch.randn(96, 64)})
    model = load(folder, device="cpu")
    assert torch.equal(model(IDS).logits, AutoModelForCausalLM.from_pretrained(folder)(IDS).logits)
    leaves = trainable(model, "all-float")
    assert [leaf.name for leaf in leaves] == sorted(model.checkpoint.info)
    moved = {leaf.name: leaf.read() for leaf in leaves if leaf.group == "embeddings"}
    assert set(moved) == set(with_twins(model.checkpoint, moved)) == {"model.embed_tokens.weight"}


def _stored_twice(folder: Path, kind: str) -> Path:
    """A checkpoint whose head and embedding are tied, both in the file."""
    if kind == "bert":
        tiny_encoders.folder(folder, kind, masked=True)
    elif kind == "gemma":
        config = AutoConfig.for_model(kind, **tiny_checkpoints.LLAMA, head_dim=16)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    else:
        tiny_checkpoints.folder(folder, kind)
    model = skeleton(Checkpoint.open(folder).config, torch.float32)
    weights = _float_tensors(folder)
    both: dict[str, torch.Tensor | None] = {}
    for head, embedding in model._tied_weights_keys.items():
        both[head] = weights[embedding]
    rewrite(folder, both)
    return folder


def test_checkpoints_of_the_bare_decoder_load(tmp_path: Path) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "x", "opt")
    want = load(folder, device="cpu")(IDS).logits
    named = _float_tensors(folder)
    rewrite(folder, dict.fromkeys(named))
    plan = {name.removeprefix("model."): tensor for name, tensor in named.items()}
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in plan.items()}
    write_file(folder / "model.safetensors", shapes, plan.items())
    model = load(folder, device="cpu")
    assert torch.equal(model(IDS).logits, want)
    assert {leaf.name for leaf in trainable(model, "all-float")} == set(plan)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model.norm.weight": None}, r"missing: model\.norm\.weight"),
        ({"model.extra.weight": torch.zeros(2)}, r"unexpected: model\.extra\.weight"),
        ({"model.norm.weight": torch.zeros(63)}, r"expected floats of shape \(64,\)"),
        ({"model.norm.weight": torch.zeros(64, dtype=torch.int32)}, "expected floats"),
        ({"model.layers.0.mlp.up_proj.bias": torch.zeros(96)}, "unexpected"),
    ],
)
def test_a_float_tensor_missing_extra_or_wrong_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], says: str
) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "x", "llama")
    rewrite(folder, change)
    with pytest.raises(FormatError, match=says):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mamba"}, "'mamba', a state-space"),
        ({"model_type": None}, "found None"),
        ({"num_hidden_layers": 3}, r"missing: model\.layers\.2"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"num_hidden_layers": 1}, r"unexpected: model\.layers\.1"),
        ({"hidden_size": 128}, "by config.json|expected floats of shape"),
        ({"hidden_size": "wide"}, "transformers can build"),
        ({"quantization_config": {"quant_method": "exl3"}}, "found quant_method 'exl3'"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "x", "llama")
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    with pytest.raises(FormatError, match=says):
        load(folder, device="cpu")


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "x", "llama")
    written = json.loads((folder / "config.json").read_text())
    written["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    model = load(folder, device="cpu")
    assert type(model).__module__ == "transformers.models.llama.modeling_llama"
    assert ["evil.Model (AutoModelForCausalLM)" in sentence for sentence in model.unlike] == [True]
    for copy in ({"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"}, {"AutoConfig": "evil.Config"}, None):
        (folder / "config.json").write_text(json.dumps(written | {"auto_map": copy}))
        assert load(folder, device="cpu").unlike == ()


@pytest.mark.parametrize("within", [16, 64])
def test_texts_that_share_their_rotary_factors_are_told_of(within: int, tmp_path: Path) -> None:
    factors = {"long_factor": [1.0, 2.0, 3.0, 4.0], "short_factor": [1.0, 1.1, 1.2, 1.3]}
    rope = {"original_max_position_embeddings": within, "rope_scaling": {"type": "longrope", **factors}}
    test_families.folder(test_families.made("phi3", **rope), tmp_path / "phi3")
    model = load(tmp_path / "phi3", device="cpu")
    ids = torch.randint(3, 96, (2, 30), generator=torch.Generator().manual_seed(0))
    differs = not torch.allclose(model(ids[:1, :10]).logits, model(ids).logits[:1, :10], atol=1e-4)
    assert differs is (within == 16)
    assert [f"more than {within} tokens" in sentence for sentence in model.unlike] == [True] * differs


def test_biases_of_zeros_where_the_architecture_has_none_are_dropped(tmp_path: Path) -> None:
    quantize(tiny_checkpoints.folder(tmp_path / "x", "llama"), tmp_path / "q", group_size=32)
    want = load(tmp_path / "q", device="cpu")(IDS).logits
    name = "model.layers.0.mlp.up_proj.bias"
    rewrite(tmp_path / "q", {name: torch.zeros(96, dtype=torch.float16)})
    model = load(tmp_path / "q", device="cpu")
    assert torch.equal(model(IDS).logits, want) and name not in model.names.values()
    rewrite(tmp_path / "q", {name: torch.ones(96, dtype=torch.float16)})
    with pytest.raises(FormatError, match="expected no bias or one of zeros"):
        load(tmp_path / "q", device="cpu")


def test_each_kind_of_leaf_by_name(tmp_path: Path) -> None:
    folder = tiny_checkpoints.folder(tmp_path / "x", "opt")
    quantize(folder, tmp_path / "q", group_size=32)
    model = load(tmp_path / "q", device="cpu")
    groups = {move: {leaf.group for leaf in trainable(model, move)} for move in ("scales", "norms", "embeddings")}
    assert groups == {move: {move} for move in groups}
    assert {leaf.group for leaf in trainable(model, "all-float")} == {"embeddings", "norms", "biases"}
    assert {leaf.group for leaf in trainable(model, "scales, norms")} == {"scales", "norms"}
    stored = {name for name, info in model.checkpoint.info.items() if info.dtype.is_floating_point}
    every = {leaf.name for move in ("scales", "all-float") for leaf in trainable(model, move)}
    assert every == stored
    for wrong in ("code", "scales,scales", "", "scales,all-float", "scales,"):
        with pytest.raises(ConfigError, match=r"^move: "):
            trainable(model, wrong)
    with pytest.raises(ConfigError, match="quantize it first"):
        trainable(load(folder, device="cpu"), "scales")


def _float_tensors(folder: Path) -> dict[str, torch.Tensor]:
    ckpt = Checkpoint.open(folder)
    return {name: ckpt.read(name) for name in ckpt.info}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_logits(floats: Path, tmp_path: Path) -> None:
    quantize(floats, tmp_path / "q", group_size=32)
    want = load(tmp_path / "q", device="cpu")(IDS).logits
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.float16, 3e-2)):
        model = load(tmp_path / "q", dtype=dtype)
        got = model(IDS.cuda()).logits
        assert got.dtype == dtype and got.device.type == "cuda"
        assert (got.float().cpu() - want).abs().max() < tolerance * want.abs().max()


def test_unread_weights_in_the_folder_are_reported(tmp_path):
    folder = gptq.example(tmp_path / "a")
    assert load(folder, "cpu").unlike == ()
    others = ["consolidated.00.pth", "onnx/model.onnx", "pytorch_model-00001-of-00002.bin", "x-Q4_0.gguf"]
    (folder / "onnx").mkdir()
    for name in [*others, "training_args.bin"]:
        (folder / name).write_bytes(b"old")
    model = load(folder, "cpu")
    (sentence,) = model.unlike
    named = ", ".join(others)
    assert sentence == f"forq does not read the weights {named} beside it: a save that patches copies them untuned"
    assert summary(model.checkpoint).unlike == (sentence,)
    model.checkpoint.save_patched(tmp_path / "b", {})
    assert all((tmp_path / "b" / name).read_bytes() == b"old" for name in others)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_among_the_files_of_a_model_is_said(tmp_path: Path) -> None:
    """transformers adds it without being asked, so that it answers otherwise."""
    lora = pytest.importorskip("peft")
    folder = tiny_checkpoints.folder(tmp_path / "m", "llama")
    config = lora.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    lora.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(folder)
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits
        alone, with_it = load(folder, "cpu"), load(folder, "cpu", adapter=folder)
        assert (alone(IDS).logits - theirs).abs().max() > 0.1
        assert torch.allclose(with_it(IDS).logits, theirs, atol=1e-4)
    (sentence,) = [sentence for sentence in alone.unlike if "adapter_config.json" in sentence]
    assert sentence in summary(alone.checkpoint).unlike and sentence not in with_it.unlike
