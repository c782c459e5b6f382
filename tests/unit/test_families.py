"""Every family of decoders: built from transformers' own, quantized, loaded, asked, moved and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from forq import losses
from forq.core import FormatError
from forq.formats.checkpoint import Checkpoint
from forq.memory import summary
from forq.models.families import FAMILIES, family_of
from forq.models.leaves import trainable
from forq.models.load import load
from forq.models.quantize import quantize
from forq.models.skeleton import sizes, turned
from forq.quant.kernels.reference import dequantise
from forq.quant.linear import QuantLinear
from forq.tasks._completion import Row, pack

IDS = torch.randint(3, 96, (2, 20), generator=torch.Generator().manual_seed(0))

SIZES = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
GATED = SIZES | {"intermediate_size": 96, "num_key_value_heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    "gemma": GATED | {"head_dim": 16},
    "gemma2": GATED | {"head_dim": 16, "sliding_window": 8, "final_logit_softcapping": 5.0},
    "gemma3_text": GATED | {"head_dim": 16, "sliding_window": 8},
    "qwen3": GATED | {"head_dim": 16},
    "granite": GATED | {"logits_scaling": 8.0},
    "glm": GATED | {"head_dim": 16},
    "helium": GATED | {"head_dim": 16},
    "cohere2": GATED | {"sliding_window": 8},
    "opt": SIZES | {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "gpt2": {"vocab_size": 96, "n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 64},
    "gpt_neox": SIZES | {"intermediate_size": 96},
    "bloom": {"vocab_size": 96, "hidden_size": 64, "n_layer": 1, "n_head": 4},
    "falcon": {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "alibi": False},
    "mpt": {"vocab_size": 96, "d_model": 64, "n_layers": 1, "n_heads": 4, "max_seq_len": 64, "logit_scale": 0.5},
}
NAMES = [name for name, family in FAMILIES.items() if family.kind == "causal"]


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """transformers' model, and the folder of the same quantized by us."""
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(request.param, **SMALL.get(request.param, GATED))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    where = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(where / "float")
    return model, quantize(where / "float", where / "q", group_size=32).path


def test_it_is_the_model_of_transformers_with_our_weights(case: tuple[Any, Path]) -> None:
    theirs, folder = case
    ours = load(folder, device="cpu")
    with torch.no_grad():
        plain = load(folder.parent / "float", device="cpu")
        assert torch.equal(plain(IDS).logits, theirs(IDS).logits)
        layers = 0
        for name, module in theirs.named_modules():
            layer = ours.get_submodule(name) if sizes(module) else None
            if isinstance(layer, QuantLinear):
                weight = dequantise(layer.weight, layer.scales)
                module.weight.copy_(weight.t() if turned(module) else weight)
                layers += 1
        assert layers == summary(Checkpoint.open(folder)).layers > 0
        want = theirs(IDS).logits
        assert (ours(IDS).logits - want).abs().max() < 1e-5 * want.abs().max()


def test_the_loss_is_that_of_its_own_logits(case: tuple[Any, Path]) -> None:
    ours = load(case[1], device="cpu")
    with torch.no_grad():
        want = cross_entropy(ours(IDS).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
        assert float(
            losses.mean_nll(ours, pack([Row(tuple(row), tuple(range(1, 20))) for row in IDS.tolist()]))
        ) == pytest.approx(float(want), rel=1e-5)


def test_what_moves_is_live_and_saved(case: tuple[Any, Path], tmp_path: Path) -> None:
    ours = load(case[1], device="cpu")
    moved = {}
    with torch.no_grad():
        before = ours(IDS).logits.clone()
        held = {leaf.group for leaf in trainable(ours, "scales") + trainable(ours, "all-float")}
        for kind in {"scales", "norms", "embeddings"} & held:
            here = ours(IDS).logits.clone()
            for leaf in trainable(ours, kind):
                moved[leaf.name] = (leaf.read() * 1.25 + 0.01).to(leaf.dtype)
                leaf.write(moved[leaf.name].float())
            assert not torch.equal(ours(IDS).logits, here), kind
        ours.checkpoint.save_patched(tmp_path / "out", moved)
        assert torch.equal(load(tmp_path / "out", device="cpu")(IDS).logits, ours(IDS).logits)
        assert not torch.equal(before, ours(IDS).logits)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mixtral", "num_local_experts": 8}, "'mixtral' is a mixture of experts"),
        ({"model_type": "qwen3_moe", "num_experts": 8}, "a mixture of experts"),
        ({"model_type": "granite", "num_local_experts": 8}, "a mixture of experts"),
        ({"model_type": "gemma3", "vision_config": {"a": 1}, "text_config": {"b": 1}}, "a multimodal model"),
        ({"model_type": "mamba", "state_size": 16}, "a state-space model"),
        ({"model_type": "t5"}, "an encoder-decoder"),
        ({"model_type": "gptj"}, "computes its own positions"),
        ({"model_type": "qwen4"}, "did you mean 'qwen"),
        ({}, "found None"),
    ],
)
def test_what_is_not_loaded_is_refused_by_name(config: dict[str, Any], says: str) -> None:
    with pytest.raises(FormatError, match=says):
        family_of(config)
