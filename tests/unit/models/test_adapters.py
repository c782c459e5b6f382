"""LoRA adapters beside quantized and float layers: in floats, or on a grid of integers."""

import copy
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import forq
from forq.coordinates import directions
from forq.coordinates.leaf import PackedLeaf
from forq.coordinates.masters import PackedMaster
from forq.errors import ConfigError, FormatError
from forq.layers import lora
from forq.layers.leaves import TensorLeaf
from forq.models.adapters import peft
from forq.models.adapters.chosen import chosen
from forq.models.adapters.lora import new_adapters
from forq.models.adapters.settings import AdapterSettings
from forq.models.load import load
from forq.runs import engine
from forq.runs.oracles.local import Local
from forq.scalars.estimators.two_point import TwoPoint
from forq.scalars.moves import Move, Term
from forq.scalars.protocols import Method
from forq.scalars.rules.sign_step import SignStep
from tests import tiny_checkpoints, tiny_lm
from tests.fixtures import gptq

MLP = ("mlp.down_proj", "mlp.up_proj")
IDS = torch.tensor([[3, 7, 5, 1, 2, 9]])
BITS = (None, 8, 4, 2)


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits.clone()


@pytest.fixture
def base(tmp_path):
    return gptq.example(tmp_path / "base")


@pytest.mark.parametrize("bits", BITS)
def test_the_initial_model_is_the_base_bit_for_bit(base, bits):
    model = load(base, "cpu")
    before = logits(model)
    named = forq.add_lora(model, rank=4, bits=bits, seed=3)
    assert named and torch.equal(logits(model), before)
    assert all(not factor.read().any() for adapter in model.adapters for factor in [adapter.b])


@pytest.mark.parametrize("bits", BITS)
def test_a_displaced_adapter_changes_the_output_and_the_return_restores_it(base, bits):
    model = load(base, "cpu")
    forq.add_lora(model, rank=4, bits=bits)
    moves = forq.space(model, "lora", "spread" if bits is None else "cells")
    before = logits(model)
    with moves.displaced(Move((Term(7, 1.0, "rademacher"),))):
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)


def test_a_layer_gives_its_own_output_and_the_scaled_product(base):
    model = load(base, "cpu")
    forq.add_lora(model, rank=3, alpha=5.0)
    forq.space(model, "lora", "spread").apply(Move((Term(1, 1.0, "gaussian"),)))
    adapter = model.adapters[0]
    layer = model.get_submodule(adapter.module)
    x = torch.randn(2, layer.in_features, generator=torch.Generator().manual_seed(0))
    a, b = adapter.a.tensor.double(), adapter.b.tensor.double()
    wanted = layer.forward(x).double() + x.double() @ a.T @ b.T * (5.0 / 3)
    assert torch.allclose(layer(x).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", (2, 4, 8))
def test_the_grid_holds_zero_and_twice_the_span_a_begins_in(bits):
    adapter = lora.begin("x", 64, 32, rank=8, alpha=16, bits=bits, seed=1)
    low, high = adapter.a.range
    assert (low, high) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    start = adapter.a.read()
    assert start.abs().max() == -low // 2 and start.min() < 0 < start.max()
    assert adapter.a.cell * -low == pytest.approx(2 / 8) and adapter.a.cell == adapter.b.cell


def test_begins_alike_on_every_machine_and_otherwise_by_seed_and_name():
    first = lora.begin("x", 64, 32, rank=2, alpha=16, bits=8, seed=0).a.storage
    assert first[0, :6].tolist() == [-60, 38, 53, 28, 42, -41]
    assert torch.equal(first, lora.begin("x", 64, 32, rank=2, alpha=16, bits=8, seed=0).a.storage)
    for other in ({"module": "y", "seed": 0}, {"module": "x", "seed": 1}):
        again = lora.begin(**other, inputs=64, outputs=32, rank=2, alpha=16, bits=8).a.storage
        assert not torch.equal(first, again)
    drawn = lora.begin("x", 4096, 8, rank=8, alpha=16, bits=None, seed=0).a.tensor * 64
    assert abs(float(drawn.mean())) < 0.02 and abs(float(drawn.square().mean()) - 1 / 3) < 0.01
    assert drawn.abs().max() <= 1


def test_no_trained_parameter_noise_or_update_of_a_grid_is_floating_point(base, monkeypatch):
    model = load(base, "cpu")
    forq.add_lora(model, rank=2, bits=4)
    moves = forq.space(model, "lora", "cells")
    seen, step, law = [], PackedMaster.step, directions.law

    def watched(self, *args):
        made = step(self, *args)
        seen.append(made.x.dtype)
        return made

    def drawn(name):
        here = law(name)
        return replace(
            here, draw=lambda bits, start, out: (seen.append(torch.from_numpy(out).dtype), here.draw(bits, start, out))
        )

    monkeypatch.setattr(PackedMaster, "step", watched)
    monkeypatch.setattr(directions, "law", drawn)
    oracle = Local(moves, lambda number: IDS, lambda ids: float(logits(model).square().mean()))
    method = Method(TwoPoint(0, 2.0, noise=("rademacher",)), (SignStep(2.0, vote=True),))
    lines = list(engine.run(moves, oracle, method, steps=3))
    assert sum(line.moved.changed for line in lines) > 0
    assert seen and set(seen) == {torch.int32}
    assert all(isinstance(leaf, PackedLeaf) for leaf in moves.leaves)
    assert {master.dtype for master in moves.masters().values()} == {torch.int8}


@pytest.mark.parametrize("bits", BITS)
def test_what_is_saved_is_what_was_shown_and_reads_back(base, tmp_path, bits):
    model = load(base, "cpu")
    forq.add_lora(model, rank=4, bits=bits)
    moves = forq.space(model, "lora", "spread" if bits is None else "cells")
    moves.apply(Move((Term(5, 1.0, "rademacher"),)))
    with moves.as_exported():
        shown = logits(model)
    peft.write(tmp_path / "adapter", model.checkpoint, model.adapters, moves.exported())
    assert torch.equal(logits(load(base, "cpu", adapter=tmp_path / "adapter")), shown)
    assert peft.holds(tmp_path / "adapter", model.adapters, moves.exported())
    codes = tmp_path / "adapter" / peft.CODES
    assert codes.exists() == (bits is not None)
    if bits is not None:
        floats, whole = load_file(tmp_path / "adapter" / peft.FLOATS), load_file(codes)
        cells = json.loads(safe_open(codes, "pt").metadata()["grid"])["cells"]
        for name, x in whole.items():
            assert x.dtype == torch.int8 and torch.equal(x.float() * np.float32(cells[name]), floats[name])
    moves.apply(Move((Term(6, 1.0, "rademacher"),)))
    assert not peft.holds(tmp_path / "adapter", model.adapters, moves.exported())


@pytest.mark.parametrize("kind", ("llama", "opt"))
def test_float_layers_carry_adapters_too(tmp_path, kind):
    model = load(tiny_checkpoints.folder(tmp_path, kind), "cpu")
    before = logits(model)
    named = forq.add_lora(model, targets="qv", bits=8)
    assert {name.rpartition(".")[2] for name in named} == {"q_proj", "v_proj"}
    assert torch.equal(logits(model), before)


def test_targets_are_ends_of_names(base):
    model = load(base, "cpu")
    sizes = new_adapters(model, rank=2, alpha=1.0, targets=("self_attn.q_proj", "down_proj"), bits=None, seed=0)
    assert {adapter.module.rpartition(".")[2] for adapter in sizes} == {"q_proj", "down_proj"}
    everything = new_adapters(model, rank=2, alpha=1.0, targets="all-linear", bits=None, seed=0)
    assert not any("lm_head" in adapter.module for adapter in everything)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"targets": ("q_prj",)}, "did you mean 'q_proj'.*down_proj"),
        ({"targets": ("proj",)}, "no linear layer is called 'proj'"),
        ({"bits": 9}, "2 … 8"),
        ({"bits": 1}, "2 … 8"),
        ({"rank": 0}, "rank"),
        ({"alpha": -1.0}, "alpha"),
    ],
)
def test_settings_that_cannot_be(base, settings, says):
    with pytest.raises(ConfigError, match=says):
        forq.add_lora(load(base, "cpu"), **settings)


def test_one_set_of_adapters_a_model(base):
    model = load(base, "cpu")
    with pytest.raises(ConfigError, match=r"forq\.add_lora"):
        forq.space(model, "lora")
    forq.add_lora(model)
    with pytest.raises(ConfigError, match="carries adapters already"):
        forq.add_lora(model)


def adapter(base, folder):
    model = load(base, "cpu")
    forq.add_lora(model, rank=2)
    peft.write(folder, model.checkpoint, model.adapters, forq.space(model, "lora", "spread").exported())
    return folder


def edit(**fields):
    def change(folder):
        path = folder / peft.CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def tensors(change):
    def changed(folder):
        save_file(change(load_file(folder / peft.FLOATS)), folder / peft.FLOATS)

    return changed


def first(factors):
    return sorted(factors)[0]


ENDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DAMAGE = {
    "no folder": lambda folder: (folder / peft.CONFIG).unlink(),
    "another kind": edit(peft_type="IA3"),
    "no rank": edit(r="eight"),
    "dora": edit(use_dora=True),
    "a rank that is none": edit(r=0),
    "another rank": edit(r=3),
    "ranks of their own": edit(rank_pattern={"q_proj": 4}),
    "modules beside": edit(modules_to_save=["lm_head"]),
    "not JSON": lambda folder: (folder / peft.CONFIG).write_text("{"),
    "torn": lambda folder: (folder / peft.FLOATS).write_bytes((folder / peft.FLOATS).read_bytes()[:500]),
    "targets that leave layers out": edit(target_modules=["self_attn.q_proj"]),
    "a layer that is excluded": edit(exclude_modules=["q_proj"]),
    "an expression that leaves layers out": edit(target_modules=r".*\.self_attn\..*"),
    "an expression that excludes a layer": edit(exclude_modules=r".*q_proj"),
    "an expression that cannot be used": edit(target_modules="(" * 3),
    "numbers that leave the layer out": edit(target_modules=ENDS, layers_to_transform=[7]),
    "numbers of other lists": edit(target_modules=ENDS, layers_to_transform=[0], layers_pattern="h"),
    "numbers that are none": edit(layers_to_transform=["0"]),
    "a factor missing": tensors(lambda factors: {name: x for name, x in factors.items() if name != first(factors)}),
    "a factor too many": tensors(
        lambda factors: {**factors, "base_model.model.nothing.lora_A.weight": torch.zeros(2, 2)}
    ),
    "not a number": tensors(lambda factors: {**factors, first(factors): factors[first(factors)] * math.nan}),
    "another shape": tensors(lambda factors: {**factors, first(factors): factors[first(factors)].T.contiguous()}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_adapter_that_cannot_be_read(base, tmp_path, damage):
    folder = adapter(base, tmp_path / "adapter")
    load(base, "cpu", adapter=folder)
    DAMAGE[damage](folder)
    with pytest.raises(FormatError):
        load(base, "cpu", adapter=folder)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "lora_ga", "loftq"])
def test_an_adapter_that_took_something_out_of_its_base_is_refused(base, tmp_path, start):
    folder = adapter(base, tmp_path / "adapter")
    edit(init_lora_weights=start)(folder)
    with pytest.raises(FormatError, match=rf"{start}.*path_initial_model_for_weight_conversion"):
        load(base, "cpu", adapter=folder)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_a_start_that_leaves_the_base_alone_is_read(base, tmp_path, start):
    folder = adapter(base, tmp_path / "adapter")
    edit(init_lora_weights=start)(folder)
    assert load(base, "cpu", adapter=folder).adapters


CHANGES_NUMBERS = {
    "init_lora_weights": "a start of tomorrow",
    "bias": "lora_only",
    "use_dora": True,
    "modules_to_save": ["lm_head"],
    "layer_replication": [[0, 1], [0, 1]],
    "lora_bias": True,
    "megatron_config": {"tensor_model_parallel_size": 2},
    "target_parameters": ["experts.down_proj"],
    "trainable_token_indices": [1, 2],
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 3},
    "kasa_config": {"beta": 0.1},
    "monteclora_config": {"num_samples": 2},
    "velora_config": {"num_groups": 2},
    "alora_invocation_tokens": [1],
    "ensure_weight_tying": True,
    "a_setting_of_tomorrow": 3,
    "rank_pattern": {"(q|k)_proj": 4},
    "alpha_pattern": {"q_proj": "many"},
    "use_rslora": "yes",
}


@pytest.mark.parametrize("key", CHANGES_NUMBERS)
def test_a_setting_that_changes_numbers_is_refused_by_its_name(base, tmp_path, key):
    folder = adapter(base, tmp_path / "adapter")
    edit(**{key: CHANGES_NUMBERS[key]})(folder)
    with pytest.raises(FormatError, match=key):
        load(base, "cpu", adapter=folder)


def test_settings_that_change_no_number_are_passed_over(base, tmp_path):
    folder = adapter(base, tmp_path / "adapter")
    edit(
        exclude_modules=["lm_head"],
        layers_to_transform=[0],
        layers_pattern="layers",
        fan_in_fan_out=True,
        qalora_group_size=16,
        loftq_config={"loftq_bits": 4},
        eva_config={"rho": 2.0},
        arrow_config=None,
        a_setting_of_tomorrow=None,
        another=False,
    )(folder)
    assert load(base, "cpu", adapter=folder).adapters


def test_factors_that_peft_leaves_out_are_named(base, tmp_path):
    folder = adapter(base, tmp_path / "adapter")
    edit(target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj"])(folder)
    with pytest.raises(FormatError, match=r"target_modules to name all .* none for model\.layers\.0\.mlp\.down_proj"):
        load(base, "cpu", adapter=folder)
    for targets in ("all-linear", r".*_proj", None):  # no list: the tensors tell
        edit(target_modules=targets)(folder)
        assert load(base, "cpu", adapter=folder).adapters


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["proj", "mlp.up_proj"]},
        {"target_modules": r".*\.(0|11)\..*_proj"},
        {"target_modules": r"q_proj"},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["mlp.up_proj"]},
        {"target_modules": ["q_proj"], "exclude_modules": r".*layers\.0\..*"},
        {"target_modules": ["q_proj"], "layers_to_transform": 1},
        {"target_modules": ["q_proj"], "layers_to_transform": [1, 11]},
        {"target_modules": ["q_proj"], "layers_to_transform": []},
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layer."},
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": []},
        {"target_modules": ["model.layers.0.self_attn.q_proj", "up_proj"], "layers_to_transform": [1]},
        {"target_modules": r".*q_proj", "layers_to_transform": [1]},
    ],
)
def test_the_layers_that_carry_an_adapter_are_pefts(fields):
    peft_own = pytest.importorskip("peft.tuners.tuners_utils")
    # PEFT refuses numbers beside an expression when a configuration is made, and reads them in its file.
    config = SimpleNamespace(
        **{"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None, "target_parameters": None}
        | {"modules_to_save": None}
        | fields
    )
    modules = [
        *(
            f"model.layers.{n}.{end}"
            for n in (0, 1, 11)
            for end in ("self_attn.q_proj", "mlp.up_proj", "mlp.gate_proj")
        ),
        *("transformer.h.1.attn.q_proj", "h.1.q_proj", "layers.1.q_proj", "q_proj", "model.q_proj", "lm_head"),
    ]
    picked = chosen("", fields)
    for module in modules:
        theirs = peft_own.check_target_module_exists(config, module)
        found = bool(theirs) and not isinstance(theirs, peft_own._ExcludedModule)
        assert picked.carries(module) is found, module


def test_a_dot_of_a_pattern_stands_for_any_character_as_in_peft():
    peft_own = pytest.importorskip("peft.utils.other")
    module = "model.layers.0.self_attn.q_proj"
    names = (
        module,
        "q_proj",
        "q.proj",
        "..proj",
        "......",
        "self_attn",
        "proj",
        "attn.q_proj",
        "layers.0.self.attn..._proj",
    )
    names += (".q_proj", "x" * 40, "." * len(module), ".." + module)
    for name in names:
        followed = peft_own.get_pattern_key([name], module) == name
        assert AdapterSettings(1, 1.0, {}, {name: 2.0}, False).alpha_of(module) == (2.0 if followed else 1.0), name


def test_scales_of_single_layers_and_of_the_root_of_the_rank_are_pefts(base, tmp_path):
    folder = adapter(base, tmp_path / "adapter")
    whole = "model.layers.0.self_attn.q_proj"
    edit(
        lora_alpha=6, alpha_pattern={"q_proj": 10, whole: 5, "attn.k_proj": 99, "self_attn.k_proj": 5, "down_proj": 3}
    )(folder)

    def scales():
        found = {adapter.module: adapter.alpha / adapter.rank for adapter in load(base, "cpu", adapter=folder).adapters}
        return [found[f"model.layers.0.{end}"] for end in ("self_attn.q_proj", "self_attn.k_proj", *MLP)]

    assert scales() == [10 / 2, 5 / 2, 3 / 2, 6 / 2]
    edit(use_rslora=True)(folder)
    assert scales() == pytest.approx([alpha / math.sqrt(2) for alpha in (10, 5, 3, 6)], rel=1e-15)


def test_b_is_measured_where_its_product_is_as_large_as_a_layer():
    made = lora.begin("x", 256, 256, rank=8, alpha=16.0, bits=None, seed=0)
    assert isinstance(made.b, TensorLeaf) and made.b.typical == 0.25
    b = made.b.typical * torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    product = b @ made.a.tensor * 2
    assert 0.5 < float(product.square().mean()) * 256 < 2


class LoraConfig:
    """The fields of peft.LoraConfig that matter here; the oracle test takes the real one."""

    def __init__(self, **fields):
        self.fields = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": None, "lora_dropout": 0.0}
        self.fields |= {"init_lora_weights": True, "use_rslora": False} | fields

    def to_dict(self):
        return self.fields


def test_a_lora_config_begins_the_same_adapters(base):
    ours, theirs = forq.load(base), forq.load(base)
    forq.add_lora(ours, rank=4, alpha=8.0, targets=("q_proj", "v_proj"), seed=3)
    forq.add_lora(theirs, LoraConfig(r=4, lora_alpha=4, use_rslora=True, target_modules={"v_proj", "q_proj"}), seed=3)
    assert [(a.module, a.rank, a.alpha) for a in ours.adapters] == [
        (a.module, a.rank, a.alpha) for a in theirs.adapters
    ]
    assert forq.space(ours, "lora").digest() == forq.space(theirs, "lora").digest()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_dropout": 0.1}, "lora_dropout 0"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"rank_pattern": {"q_proj": 2}}, "one rank"),
        ({"layers_to_transform": [1]}, "layers_to_transform"),
        ({"target_modules": ".*q_proj"}, "as a list"),
        ({"r": 0}, "expected peft_type"),
    ],
)
def test_a_lora_config_that_means_something_else_is_refused(base, fields, says):
    with pytest.raises(ConfigError, match=says):
        forq.add_lora(forq.load(base), LoraConfig(**fields))


def test_a_tokenizer_beside_an_adapter_that_says_otherwise_is_named(tmp_path):
    """As trainers save it, with the template of the chats that the adapter was trained on."""
    base, adapter = tiny_checkpoints.folder(tmp_path / "m", "llama"), tmp_path / "adapter"
    own = copy.deepcopy(tiny_lm.tokenizer())  # all tests share one
    own.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    own.save_pretrained(base)
    model = load(base, "cpu")
    forq.add_lora(model, rank=2)
    peft.write(adapter, model.checkpoint, model.adapters, forq.space(model, "lora", "spread").exported())
    assert load(base, "cpu", adapter=adapter).unlike == ()
    own.save_pretrained(adapter)
    assert load(base, "cpu", adapter=adapter).unlike == ()
    own.chat_template = "{% for message in messages %}user: {{ message['content'] }}{% endfor %}"
    own.add_tokens(["<turn>"])
    own.save_pretrained(adapter)
    template, tokens = load(base, "cpu", adapter=adapter).unlike
    assert "another chat template" in template and "'<turn>'" in tokens
