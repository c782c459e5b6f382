"""A pipeline whose T5 is in 4 bits: bitsandbytes is not asked, and it embeds as the same weights do in floats."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import T5EncoderModel

import forq
from forq.errors import FormatError
from forq.layers.linear import QuantLinear
from forq.models.diffusion.denoiser import library
from forq.models.diffusion.pipeline import given
from tests import tiny_pipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("pipelines")
    return tiny_pipeline.with_t5(tiny_pipeline.save(base / "plain"), base / "t5")


def embedded(pipe):
    with torch.inference_mode():
        return pipe.encode_prompt("a two", None, None, device=CPU, do_classifier_free_guidance=False)[0]


def test_embeddings_are_those_of_the_same_weights_in_floats(folder, tmp_path):
    model = forq.load(folder / "text_encoder_3", CPU)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}
    assert len(layers) == 14
    floats = {name: tensor for name, tensor in model.state_dict().items() if "encoder.embed" not in name}
    whole = floats | {f"{name}.weight": layer.dequantise().clone() for name, layer in layers.items()}
    plain = shutil.copytree(folder, tmp_path / "plain")
    for file in (plain / "text_encoder_3").glob("*.safetensors"):
        file.unlink()
    T5EncoderModel(model.config).save_pretrained(plain / "text_encoder_3")
    known = T5EncoderModel(model.config).state_dict()
    save_file(
        {name: tensor.contiguous() for name, tensor in whole.items() if name in known},
        plain / "text_encoder_3" / "model.safetensors",
        metadata={"format": "pt"},
    )
    made = library().StableDiffusion3Pipeline
    ours, theirs = (embedded(made.from_pretrained(where, **given(where, CPU))) for where in (folder, plain))
    assert given(plain, CPU) == {}
    assert theirs[:, -4:].abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_damaged_one_is_said(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    file = broken / "text_encoder_3" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FormatError, match="text_encoder_3"):
        given(broken, CPU)


def test_half_of_another_encoder_decoder_is_still_refused(folder, tmp_path):
    other = shutil.copytree(folder / "text_encoder_3", tmp_path / "t5")
    config = other / "config.json"
    config.write_text(config.read_text().replace("T5EncoderModel", "T5ForConditionalGeneration"))
    with pytest.raises(FormatError, match="only decoders and encoders are built"):
        forq.load(other, CPU)
