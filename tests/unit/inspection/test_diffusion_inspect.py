"""SD3.5 Large as `forq inspect` sees it: from headers, without a byte of its weights."""

from __future__ import annotations

import json

import torch

from forq.checkpoints import Checkpoint
from forq.inspection.memory import summary
from forq.models.diffusion import denoiser

SD35_LARGE = {
    "_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16,
    "num_layers": 38, "attention_head_dim": 64, "num_attention_heads": 38, "joint_attention_dim": 4096,
    "caption_projection_dim": 2432, "pooled_projection_dim": 2048, "pos_embed_max_size": 192, "qk_norm": "rms_norm",
}  # fmt: skip


def test_sd35_large_is_counted_from_headers_alone(tmp_path):
    model = denoiser.skeleton(SD35_LARGE, torch.bfloat16)
    count, header, end = sum(p.numel() for p in model.parameters()), {}, 0
    for name, tensor in model.state_dict().items():
        size = 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    (tmp_path / "transformer").mkdir()
    with (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # 16 GB that take no place
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(SD35_LARGE))
    found = summary(Checkpoint.open(tmp_path))
    assert (found.model_type, found.format) == ("SD3Transformer2DModel", "float")
    assert 8.0e9 < count == sum(found.moves.values()), "tables of positions do not move"
