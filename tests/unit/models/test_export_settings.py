"""What an exported or saved folder says of itself: its owners read the settings before the tensors."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import forq
from forq.checkpoints import Checkpoint
from forq.checkpoints.containers import gguf as container
from forq.demo import CHECKPOINT
from forq.errors import FormatError
from forq.models.convert.gguf.header import rope_factors
from forq.models.saved import write
from forq.models.skeleton import configuration
from tests.fixtures import gguf, gptq
from tests.unit.formats.test_gguf import again

IDS = torch.arange(12).view(1, 12)


@pytest.fixture(autouse=True)
def no_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples have none, which a GGUF file would hold."""
    monkeypatch.setattr(container, "tokenizer_of", lambda path: SimpleNamespace(save_pretrained=lambda folder: None))


def settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found.get("quantization_config", found)  # type: ignore[no-any-return]


def logits(folder: Path, **more: Any) -> torch.Tensor:
    model: Any = forq.load(folder, device="cpu", kernel="reference")
    found: torch.Tensor = model(IDS, **more).logits
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("to", ["gptq", "compressed-tensors"])
def test_a_quantized_embedding_and_head_become_floats(tied: bool, to: str, tmp_path: Path) -> None:
    base = gguf.example(tmp_path / "base", types=("Q8_0",), tied=tied)
    done = forq.export(base, tmp_path / "out", to)
    written = Checkpoint.open(tmp_path / "out")
    ends = ["model.embed_tokens", *([] if tied else ["lm_head"])]
    assert [name for name in written.info if name.startswith(("model.embed_tokens", "lm_head"))] == [
        f"{name}.weight" for name in sorted(ends)
    ]
    assert all(written.info[f"{name}.weight"].dtype == torch.float16 for name in ends)
    assert len(done.notes) == len(ends) and "is written in floats" in done.notes[0]
    assert done.changed > 0 and done.max_change < 1e-3  # by the rounding of these alone
    assert torch.allclose(logits(tmp_path / "out"), logits(base), rtol=1e-2, atol=1e-2)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}


def rotated(folder: Path, factors: torch.Tensor | None = None, attention: float | None = None) -> Path:
    """A GGUF with factors of its rotary frequencies, or a factor of its attention."""

    def change(values: dict[str, Any], tensors: Any) -> None:
        values["llama.rope.freq_base"] = 500000.0
        if attention is not None:
            values["llama.rope.scaling.attn_factor"] = attention
        if factors is not None:
            tensors.append(("rope_freqs.weight", 0, tuple(factors.shape), factors))

    return again(gguf.example(folder), change)


def llama3(folder: Path) -> torch.Tensor:
    """The factors of Llama 3.1 for a file of :func:`rotated`."""
    found = rope_factors(configuration({**Checkpoint.open(rotated(folder)).config, "rope_scaling": LLAMA3}))
    assert found is not None and len(found.unique()) > 2 and found.max() == 8.0
    return found


@pytest.mark.parametrize("to", ["float32", "gptq"])
def test_rotary_factors_of_llama_3_become_settings(to: str, tmp_path: Path) -> None:
    file = rotated(tmp_path / "file", llama3(tmp_path / "guide"))
    forq.export(file, tmp_path / "out", to)
    written = Checkpoint.open(tmp_path / "out")
    assert written.config["rope_scaling"] == LLAMA3 and "rope_freqs.weight" not in written.info
    far = {"position_ids": torch.arange(12).view(1, 12) * 900}
    want, plain = logits(file, **far), logits(rotated(tmp_path / "plain"), **far)
    wrong = (plain - want).abs().max()
    assert (logits(tmp_path / "out", **far) - want).abs().max() < 0.1 * wrong


@pytest.mark.parametrize("to", ["float32", "gptq"])
@pytest.mark.parametrize("more", [{"factors": torch.linspace(1, 8, 4)}, {"attention": 1.5}])
def test_rotary_scaling_without_a_setting_is_not_lost(more: dict[str, Any], to: str, tmp_path: Path) -> None:
    file = rotated(tmp_path / "file", **more)
    with pytest.raises(
        FormatError, match=r"that config\.json can state, found (rope_freqs\.weight|an attention factor)"
    ):
        forq.export(file, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_act_order_is_said_beside_its_groups(tmp_path: Path) -> None:
    for name, order in (("ordered", True), ("plain", False)):
        base = gptq.example(tmp_path / name, desc_act=order)
        forq.export(base, tmp_path / f"{name}-out", "gptq")
        assert settings(tmp_path / f"{name}-out")["desc_act"] is order


@pytest.mark.parametrize("to", ["gptq", "compressed-tensors", "float32"])
def test_older_settings_beside_config_json_agree_or_are_gone(to: str, tmp_path: Path) -> None:
    base = gptq.example(tmp_path / "base", checkpoint_format="gptq_v2")
    (base / "quantize_config.json").write_text(json.dumps(settings(base)))
    (base / "quant_config.json").write_text("{}")
    forq.export(base, tmp_path / "out", to)
    assert not (tmp_path / "out" / "quant_config.json").exists()
    if to != "gptq":
        assert not (tmp_path / "out" / "quantize_config.json").exists()
    else:
        assert settings(tmp_path / "out", "quantize_config.json") == settings(tmp_path / "out")


def test_layers_of_the_blocks_that_stay_in_float_are_named(tmp_path: Path) -> None:
    base = gguf.example(tmp_path / "base", types=("Q8_0",))  # 48 inputs of ffn_down are no whole blocks
    forq.export(base, tmp_path / "out", "gptq")
    told, written = settings(tmp_path / "out"), Checkpoint.open(tmp_path / "out")
    (named,) = told["modules_in_block_to_quantize"]
    assert sorted(named) == sorted(name.removesuffix(".qweight") for name in written.info if name.endswith("qweight"))
    kept = {name.removesuffix(".weight") for name in written.info if "_proj.weight" in name}
    assert kept and {rule.removeprefix("-:^").removesuffix("$").replace("\\", "") for rule in told["dynamic"]} == kept


def test_a_symmetric_file_whose_zero_points_moved_says_so(tmp_path: Path) -> None:
    base = Checkpoint.open(CHECKPOINT)
    name = next(name for name in base.info if name.endswith(".qzeros"))
    same, other = base.read(name), base.read(name) ^ 1
    write(base, {name: same}, tmp_path / "same")
    assert (tmp_path / "same" / "config.json").read_bytes() == (CHECKPOINT / "config.json").read_bytes()
    write(base, {name: other}, tmp_path / "moved")
    moved = Checkpoint.open(tmp_path / "moved")
    assert settings(tmp_path / "moved") == {**settings(CHECKPOINT), "sym": False}
    assert torch.equal(moved.read(name), other)
    if (CHECKPOINT / "quantize_config.json").exists():
        assert settings(tmp_path / "moved", "quantize_config.json")["sym"] is False
