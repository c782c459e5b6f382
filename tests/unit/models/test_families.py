"""Every family of decoders: built from transformers' own, quantized, loaded, asked, tuned and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

import forq
from forq.checkpoints import Checkpoint
from forq.checkpoints.write import write_file
from forq.coordinates.leaf import Leaf
from forq.errors import FormatError
from forq.inspection.memory import summary
from forq.layers.kernels.reference import dequantise
from forq.layers.linear import QuantLinear
from forq.models.convert.quantize import quantize
from forq.models.families import FAMILIES, family_of
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.skeleton import compute_buffers, sizes, turned
from forq.tasks.kinds import choice as _choice
from forq.tasks.kinds.completion import Row, pack
from forq.tasks.kinds.generate import written
from forq.tasks.objectives import losses
from forq.tokens import batches
from forq.tokens.pretrained import language_model
from tests import tiny_encoders, tiny_lm

IDS = torch.randint(3, 96, (2, 20), generator=torch.Generator().manual_seed(0))
CHOICES = _choice.pack(
    [
        _choice.Row(prompt=(0, 17, 33, 5), options=((7, 8, 9), (7, 11)), label=1),
        _choice.Row(prompt=(0, 5), options=((7, 8), (4, 4, 21, 6)), label=0),
    ]
)

VOCABULARY = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SIZES = VOCABULARY | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 64}
GATED = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2}
WIDE = GATED | {"head_dim": 16}
# A window shorter than the rows, so that it matters; one layer of each kind.
SLIDES = WIDE | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
OLD = VOCABULARY | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SMALL: dict[str, dict[str, Any]] = {
    "mistral": GATED | {"sliding_window": 8},
    "qwen2": GATED | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": WIDE,
    "gemma": WIDE,
    "gemma2": SLIDES | {"final_logit_softcapping": 0.5, "attn_logit_softcapping": 0.5},
    "gemma3_text": SLIDES,
    "cohere2": SLIDES,
    "olmo3": SLIDES,
    "exaone4": SLIDES,
    "granite": GATED | {"logits_scaling": 8.0},
    "glm": WIDE,
    "glm4": WIDE,
    "helium": GATED | {"head_dim": 8},
    "seed_oss": WIDE,
    "hunyuan_v1_dense": WIDE,
    "opt": SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gpt2": OLD,
    "gpt_bigcode": OLD,
    "gptj": OLD | {"rotary_dim": 4},
    "codegen": OLD | {"rotary_dim": 4, "n_ctx": 64},
    "gpt_neo": VOCABULARY
    | {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64, "window_size": 8}
    | {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": SIZES | {"intermediate_size": 64},
    "bloom": VOCABULARY | {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": SIZES | {"alibi": False},
    "mpt": VOCABULARY | {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "logit_scale": 0.5},
    "xglm": VOCABULARY
    | {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 64},
}
NAMES = [name for name, family in FAMILIES.items() if family.kind == "causal"]
# These count columns instead of positions: options get a row each.
BY_COLUMN = {"bloom", "mpt", "gpt_neo"}


def made(name: str, **changes: Any) -> Any:
    """transformers' model of a family, with weights large enough that every token matters."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **SMALL.get(name, GATED) | changes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value)) if value.ndim == 1 else value.mul_(4)
    return model


def folder(model: Any, where: Path) -> Path:
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(where)
    tiny_lm.tokenizer(vocabulary=300).save_pretrained(where)
    return where


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """transformers' model, and the folder of the same quantized by us."""
    model = made(request.param)
    where = tmp_path_factory.mktemp(request.param)
    return model, quantize(folder(model, where / "float"), where / "q", group_size=32).path


def test_it_is_the_model_of_transformers_with_our_weights(case: tuple[Any, Path]) -> None:
    theirs, folder = case
    ours = load(folder, device="cpu")
    with torch.no_grad():
        plain = load(folder.parent / "float", device="cpu")
        assert torch.equal(plain(IDS).logits, theirs(IDS).logits)
        filled = made(theirs.config.model_type)
        layers = 0
        for name, module in filled.named_modules():
            layer = ours.get_submodule(name) if sizes(module) else None
            if isinstance(layer, QuantLinear):
                weight = dequantise(layer.weight, layer.scales)
                module.weight.copy_(weight.t() if turned(module) else weight)
                layers += 1
        found = summary(Checkpoint.open(folder))
        assert layers == found.layers > 0
        assert found.moves["scales"] == sum(leaf.shape.numel() for leaf in trainable(ours))
        want = filled(IDS).logits
        assert (ours(IDS).logits - want).abs().max() <= 1e-5 * want.abs().max()


def test_texts_are_the_same_alone_and_beside_others(case: tuple[Any, Path]) -> None:
    """Through the cache and padding on the left, as without either."""
    theirs, _ = case
    prompts = [[5, 6, 7], [9], list(range(11, 23))]
    together = written(theirs, prompts, 9)
    for prompt, found in zip(prompts, together, strict=True):
        ids = torch.tensor([prompt])
        for _ in range(9):
            with torch.inference_mode():
                ids = torch.cat([ids, theirs(ids).logits[:, -1:].argmax(-1)], dim=1)
        assert found == ids[0, len(prompt) :].tolist()


def test_losses_are_those_of_its_own_logits(case: tuple[Any, Path]) -> None:
    """Whatever comes after the head, and options packed beside each other or not."""
    ours = load(case[1], device="cpu")
    with torch.no_grad():
        want = cross_entropy(ours(IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
        found = losses.mean_nll(ours, pack([Row(tuple(row), tuple(range(1, 20))) for row in IDS.tolist()]))
        assert float(found) == pytest.approx(float(want), rel=1e-5)
        alone = batches.unpacked(CHOICES)
        logits = ours(alone.input_ids).logits[alone.row, alone.column]
        each = cross_entropy(logits, alone.target, reduction="none")
        torch.testing.assert_close(losses.token_nll(ours, CHOICES), each, atol=1e-5, rtol=1e-5)
    assert CHOICES.part is not None
    assert language_model(ours).takes_packed(CHOICES.part) == (ours.config.model_type not in BY_COLUMN)


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_a_family_does_not_use_change_no_loss(name: str, tmp_path: Path) -> None:
    """A file may have what another family's logits follow: a Llama made of a Granite, for example."""
    where = folder(made(name), tmp_path / name)
    config = json.loads((where / "config.json").read_text())
    config |= {"logits_scaling": 3.0, "final_logit_softcapping": 0.5} | ({} if name == "mpt" else {"logit_scale": 0.3})
    (where / "config.json").write_text(json.dumps(config))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(where).eval()
    batch = pack([Row(tuple(row), tuple(range(1, 20))) for row in IDS.tolist()])
    with torch.no_grad():
        want = cross_entropy(theirs(IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
        assert float(losses.mean_nll(load(where, device="cpu"), batch)) == pytest.approx(float(want), rel=1e-5)


def test_its_leaves_keep_their_laws(case: tuple[Any, Path]) -> None:
    """What is read and written back changes nothing, what is displaced is seen, and what returns is as before."""
    ours = load(case[1], device="cpu")
    held: list[Leaf] = [*trainable(ours), *trainable(ours, "all-float")]
    assert len({leaf.name for leaf in held}) == len(held)
    with torch.no_grad():
        rest = ours(IDS).logits
        values = {leaf.name: leaf.read() for leaf in held}
        for group in sorted({leaf.group for leaf in held}):
            for leaf in held:
                leaf.write(values[leaf.name] * (1.25 if leaf.group == group else 1) + 0.01 * (leaf.group == group))
            assert not torch.equal(ours(IDS).logits, rest), group
        for leaf in held:
            leaf.write(values[leaf.name])
            assert all(torch.equal(leaf.read(), values[leaf.name]) for leaf in (leaf, held[0], held[-1]))
        assert torch.equal(ours(IDS).logits, rest)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text("".join(f"film number {n % 7} says it was {n * n % 10} .\n" for n in range(40)))
    return path


def test_it_is_tuned_saved_and_rebuilt(case: tuple[Any, Path], text: Path, tmp_path: Path) -> None:
    plain = case[0].config.model_type == "olmo"  # its norms have no weights
    run = forq.tune(
        load(case[1], device="cpu"),
        "text",
        text,
        recipe="qzo-paper",
        move="scales" if plain else "scales,norms",
        steps=2,
        eval_every=2,
        out=tmp_path / "run",
        settings={"rule": {"lr": 1e-4}, "task": {"max_length": 16, "batch_rows": 2}},
    )
    assert forq.replay(run.folder, case[1], tmp_path / "end", step=2) == 2
    assert Checkpoint.open(tmp_path / "end").digest() != Checkpoint.open(case[1]).digest()
    verdict = forq.verify(run.folder, case[1])
    assert (verdict.steps, verdict.rebuilt, verdict.checkpoint) == (2, True, True)
    load(tmp_path / "end", device="cpu")


REFUSED = {
    "a mixture of experts": [
        *("mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "gpt_oss", "granitemoe", "olmoe", "dbrx"),
        *("phimoe", "glm4_moe", "minimax", "llama4_text", "ernie4_5_moe", "jamba", "qwen3_next", "nemotron_h"),
    ],
    "a multimodal model": ["gemma3", "gemma3n", "llama4", "llava", "qwen2_vl", "qwen2_5_vl", "paligemma", "mllama"],
    "a state-space, recurrent or convolutional model": [
        *(
            "mamba",
            "mamba2",
            "falcon_mamba",
            "bamba",
            "zamba2",
            "rwkv",
            "recurrent_gemma",
            "falcon_h1",
            "lfm2",
            "xlstm",
        ),
        "qwen3_5_text",
    ],
    "an encoder-decoder": ["t5", "mt5", "bart", "mbart", "pegasus", "whisper"],
}


@pytest.mark.parametrize(("why", "name"), [(why, name) for why, names in REFUSED.items() for name in names])
def test_what_is_not_built_is_refused_by_name(why: str, name: str) -> None:
    config = transformers.AutoConfig.for_model(name).to_diff_dict()
    with pytest.raises(FormatError, match=f"found '{name}'.* {why}: "):
        family_of(config)


def test_a_mistral_whose_windows_alternate_is_refused() -> None:
    config = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    assert family_of(config).kind == "causal"
    with pytest.raises(FormatError, match="mistral with layer_types, which transformers reads as ministral"):
        family_of({**config, "layer_types": ["sliding_attention", "full_attention"]})


@pytest.mark.parametrize("name", NAMES)
def test_no_family_is_refused_by_its_own_defaults(name: str) -> None:
    assert family_of(transformers.AutoConfig.for_model(name).to_diff_dict()) is FAMILIES[name]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "granite", "num_local_experts": 8}, r"'granite' \(num_local_experts\), a mixture of experts"),
        ({"model_type": "t5"}, "an encoder-decoder"),
        ({"model_type": "gwen2"}, r"among llama, .*, found 'gwen2' \(did you mean 'qwen2'\?\)"),
        ({}, "found None"),
    ],
)
def test_a_refusal_says_what_was_found(config: dict[str, Any], says: str) -> None:
    with pytest.raises(FormatError, match=says):
        family_of(config)


@pytest.mark.parametrize(
    ("name", "setting", "says"),
    [
        ("gemma3_text", {"use_bidirectional_attention": True}, "a decoder .*, found use_bidirectional_attention true"),
        ("gemma", {"use_bidirectional_attention": True}, "a decoder .*, found use_bidirectional_attention true"),
        ("llama", {"is_causal": False}, "a decoder that attends to earlier tokens only, found is_causal false"),
        ("bert", {"is_decoder": True}, "an encoder that attends in both directions, found is_decoder true"),
        ("roberta", {"is_decoder": True}, "an encoder that attends in both directions, found is_decoder true"),
    ],
)
@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification"])
def test_another_direction_of_attention_is_refused(name: str, setting: dict[str, Any], says: str, head: str) -> None:
    """These are the settings that turn a mask of transformers around."""
    sizes = tiny_encoders.KINDS.get(name) or SMALL.get(name, GATED)
    ids = torch.tensor([[3, 4, 5], [3, 4, 6]])

    def sees_the_last(**settings: Any) -> bool:
        config = transformers.AutoConfig.for_model(name, **sizes, **settings)
        made = transformers.AutoModel.from_config(config).eval()
        with torch.no_grad():
            first, second = made(input_ids=ids).last_hidden_state[:, 0]
        return not torch.equal(first, second)

    assert sees_the_last(**setting) != sees_the_last()
    config = {"model_type": name, "architectures": [f"Any{head}"]}
    family_of({**config, **{key: not value for key, value in setting.items()}})
    with pytest.raises(FormatError, match=says):
        family_of({**config, **setting})


@pytest.mark.parametrize(
    ("name", "bare", "extra"),
    [
        ("gpt2", "transformer.", ("h.0.attn.bias", "h.0.attn.masked_bias")),
        ("gptj", "", ("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias")),
        ("codegen", "", ("transformer.h.0.attn.causal_mask",)),
        ("gpt_neo", "", ("transformer.h.0.attn.attention.bias",)),
        ("gpt_neox", "", ("gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq")),
        ("llama", "", ("model.layers.0.self_attn.rotary_emb.inv_freq",)),
    ],
)
def test_files_of_old_load_too(name: str, bare: str, extra: tuple[str, ...], tmp_path: Path) -> None:
    """Without the prefix of the bare model, with masks and frequencies beside the weights, an old name of the head."""
    theirs = made(name)
    where = folder(theirs, tmp_path / "float")
    ckpt = Checkpoint.open(where)
    old = {"lm_head.weight": "embed_out.weight"} if name == "gpt_neox" else {}
    tensors = {old.get(each, each).removeprefix(bare): ckpt.read(each) for each in ckpt.info}
    tensors |= {each: torch.ones(1, 1, 4, 4, dtype=torch.uint8) for each in extra}
    write_file(where / "model.safetensors", {k: (v.dtype, tuple(v.shape)) for k, v in tensors.items()}, tensors.items())
    with torch.no_grad():
        assert torch.equal(load(where, device="cpu")(IDS).logits, theirs(IDS).logits)
    made_q = quantize(where, tmp_path / "q", group_size=32)
    kept = Checkpoint.open(made_q.path).info
    assert set(extra) <= set(kept) and made_q.layers == summary(Checkpoint.open(made_q.path)).layers > 0
    load(made_q.path, device="cpu")


def test_a_buffer_that_transformers_does_not_compute_is_named() -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.ones(3), persistent=False)

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("llama", **GATED))
        model.model.own = Own()
    with pytest.raises(FormatError, match=r"model\.own\.table: expected a buffer that transformers computes"):
        compute_buffers(model, torch.device("cpu"))


def test_a_run_moves_a_tie_stored_twice_as_one(text: Path, tmp_path: Path) -> None:
    where = folder(made("gpt2"), tmp_path / "base")
    ckpt = Checkpoint.open(where)
    one, other = "transformer.wte.weight", "lm_head.weight"
    tensors = {name: ckpt.read(name) for name in ckpt.info}
    tensors[other] = tensors[one]
    write_file(where / "model.safetensors", {k: (v.dtype, tuple(v.shape)) for k, v in tensors.items()}, tensors.items())
    settings = {"rule": {"lr": 1e-4}, "task": {"max_length": 16, "batch_rows": 2, "validation_rows": 4}}
    run = forq.tune(
        where, "text", text, recipe="qzo-paper", move="embeddings", steps=6, out=tmp_path / "run", settings=settings
    )
    assert run.best is not None and run.best.trained > 0
    forq.replay(run.folder, where, tmp_path / "again")
    for path in (run.checkpoint, tmp_path / "again"):
        saved = Checkpoint.open(path)
        assert saved.same(one, other) and not torch.equal(saved.read(one), tensors[one])
    verdict = forq.verify(run.folder, where)
    assert (verdict.rebuilt, verdict.checkpoint) == (True, True)
