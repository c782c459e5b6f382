"""A small pipeline of Stable Diffusion 3's classes for MNIST: what surrounds the transformer, made without training.

- The VAE is exact: an AutoencoderKL without down-sampling whose weights are set by hand so that a latent is the grey
  value of its pixel. SiLU(h) − SiLU(−h) = h makes the activation linear, and a pair of large constant channels keeps
  GroupNorm's divisor from depending on the picture.
- The text encoders are two CLIPs of random weights, frozen: different captions have different embeddings, no more.
- The tokenizer knows the ten digits as words; anything else is spelled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CAPTIONS = tuple(f"a {word}" for word in WORDS)
SIZE, PATCH, WIDTH, HEADS, DEPTH = 28, 4, 128, 4, 4
TEXT, TOKENS, LARGE = 32, 5, 100.0
ROOM = (
    1  # zero tokens in the place of the absent T5, `max_sequence_length` to diffusers; its own 256 would cost fivefold
)


def exact_vae() -> AutoencoderKL:
    """Latent = mean of the pixel's channels, pixel = latent in all of them; errors near 1e-5."""
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,), layers_per_block=1, latent_channels=1, norm_num_groups=1, sample_size=SIZE,
        scaling_factor=1.6, shift_factor=-0.74, use_quant_conv=False, use_post_quant_conv=False,
        mid_block_add_attention=False,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        for module in vae.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight.fill_(1.0)
        for part, inside in ((vae.encoder, 1 / 3), (vae.decoder, 1.0)):
            # Channels h, −h, C, −C: the mean is 0, and the deviation C/√2 up to (h/C)².
            part.conv_in.weight[0, :, 1, 1], part.conv_in.weight[1, :, 1, 1] = inside, -inside
            part.conv_in.bias[2], part.conv_in.bias[3] = LARGE, -LARGE
            back = LARGE / 2**0.5
            part.conv_out.weight[:, 0, 1, 1], part.conv_out.weight[:, 1, 1, 1] = back, -back
        vae.encoder.conv_out.weight[1] = 0.0
        vae.encoder.conv_out.bias[1] = -30.0  # the logarithm of the variance: no noise
    return vae.eval()


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-pair tokenizer of the digits' names; its files are written to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    merges, made = [], set()
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in made:
                made.add(pair)
                merges.append(f"{pair[0]} {pair[1]}")
            parts = [parts[0] + parts[1], *parts[2:]]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *(line.replace(" ", "") for line in merges)]
    vocab = {piece: place for place, piece in enumerate(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=TOKENS)


def text_encoder(words: int, seed: int) -> CLIPTextModelWithProjection:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=words, hidden_size=TEXT, intermediate_size=2 * TEXT, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TOKENS, projection_dim=TEXT, initializer_factor=10.0,
        bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config).eval()


def transformer(depth: int = DEPTH, width: int = WIDTH, heads: int = HEADS, **others: Any) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=SIZE, patch_size=PATCH, in_channels=1, out_channels=1, num_layers=depth,
        attention_head_dim=width // heads, num_attention_heads=heads, joint_attention_dim=2 * TEXT,
        caption_projection_dim=width, pooled_projection_dim=2 * TEXT, pos_embed_max_size=SIZE // PATCH, **others,
    )  # fmt: skip


def pipeline(model: SD3Transformer2DModel, scratch: Path) -> StableDiffusion3Pipeline:
    one, two = tokenizer(scratch / "one"), tokenizer(scratch / "two")
    return StableDiffusion3Pipeline(
        transformer=model,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=exact_vae(),
        text_encoder=text_encoder(len(one), 1),
        tokenizer=one,
        text_encoder_2=text_encoder(len(two), 2),
        tokenizer_2=two,
        text_encoder_3=None,
        tokenizer_3=None,
    )
