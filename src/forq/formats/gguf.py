"""GGUF: blocks of 32 or 256 codes with a float16 scale d among them, and with a minimum m or its scale dmin.

    Q4_0, Q8_0              d, codes:                     w = d·(q − 8), d·q
    Q4_1, Q5_0, Q5_1        d, (m,) codes:                w = d·q + m, d·(q − 16), d·q + m
    Q2_K … Q6_K             d, (dmin,) factors of a few bits for 16 or 32 codes each, codes
    IQ4_NL, IQ4_XS          d, (factors,) codes:          w = d·level[q], …
    IQ1 … IQ3, TQ1, TQ2     d, factors, codes that stand still (:mod:`forq.formats.codecs.gguf_grids`)

One file holds everything: configuration and tokenizer are made of its values (:mod:`forq.checkpoints.containers.gguf`).
What moves are d, m and dmin, and the codes; a save is a copy of the file with those bytes replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf.kinds import BY_NAME, Kind
from forq.errors import FormatError
from forq.formats.base import About, Format
from forq.formats.codecs.gguf_blocks import LEVELS, Blocks
from forq.formats.codecs.gguf_codes import put_together, taken_apart
from forq.formats.codecs.gguf_grids import STILL, GridBlocks
from forq.formats.codecs.gguf_grids import check as check_grid
from forq.layers.codes import pack, unpack
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype

_CHUNK = 1 << 20
"""Codes packed at once: a byte each would be twice their storage."""
_PLAIN = ("Q4_0", "Q8_0", "IQ4_NL")
"""Types that are codes with one scale a block, which every kernel reads."""


class GGUF(Format):
    """Tensors in blocks, of one type each or of a mixture of types."""

    about = About(
        title="GGUF",
        bits="2, 3, 4, 5, 6, 8: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K … Q6_K, IQ4_NL, IQ4_XS, IQ1_S … IQ3_S, TQ1_0, "
        "TQ2_0 and mixtures",
        moves=("scales", "codes"),
        exported="the same file; block scales are rounded to float16 (about a fifth of a step of 1e-3)",
        library="gguf 0.19.0, transformers 5.23.0, diffusers 0.42.1, xllamacpp 2026.10.11549 (llama.cpp)",
        layout=(
            "X.weight.d             float16 (out, blocks), the scale of a block of 32 or 256 values",
            "X.weight.m, .dmin      float16 (out, blocks), its minimum, or the scale of its minima",
            "X.weight.qs            its codes, all their bits (ggml's qs, ql, qh, hmask)",
            "X.weight.scales        factors of a few bits, which stand still",
            "a quantized embedding moves like a layer",
            "IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, TQ1_0, TQ2_0: codes stand still, d moves",
            "MXFP4, NVFP4: refused, since the least step of a block's scale is too long (MXFP4's doubles 32 weights)",
        ),
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether it is a GGUF file."""
        config = ckpt.config.get("quantization_config")
        return (
            isinstance(config, dict) and config.get("quant_method") == "gguf" and isinstance(config.get("types"), dict)
        )

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The tensors in blocks by module name, embeddings included."""
        for kind in _types(ckpt).values():
            check_grid(kind)
        return {name.removesuffix(".weight"): _spec(ckpt, name, kind) for name, kind in _types(ckpt).items()}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Codes or blocks of a matrix, its scales and its bias."""
        name = f"{spec.name}.weight"
        kind = _types(ckpt)[name]
        live = tuple(ckpt.read(one.name) for one in spec.live)
        bias = None if spec.bias is None else ckpt.read(spec.bias)
        codes = ckpt.read(f"{name}.qs")
        if kind.name not in _PLAIN:
            factors = ckpt.read(f"{name}.scales") if f"{name}.scales" in ckpt.info else None
            made = GridBlocks if kind.name in STILL else Blocks
            return Parts(made(kind, codes, factors), live, bias)
        codes = _codes(codes, kind)
        levels = torch.tensor(LEVELS, dtype=torch.float32) if kind.name == "IQ4_NL" else None
        zero = 0 if levels is not None else 1 << kind.bits - 1
        zeros = torch.full((spec.in_features // kind.size, spec.out_features), zero, dtype=zeros_dtype(kind.bits))
        return Parts(QuantWeight(codes, zeros, kind.bits, kind.size, levels=levels), live, bias, _turned)

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes | None:
        """How the codes of a layer are packed; None where they stand still."""
        name = f"{spec.name}.weight.qs"
        kind = _types(ckpt)[f"{spec.name}.weight"]
        if kind.name in STILL:
            return None
        packed = partial(_filed, kind=kind) if kind.name in _PLAIN else _as_they_are
        return FiledCodes(name, ckpt.info[name].dtype, spec.shape, spec.bits, packed, by_rows=True)

    def unlike(self, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
        """Keys of the architecture that forq ignores; llama.cpp ignores them too, as the oracle tests check."""
        if not (keys := ckpt.contents.values.get("unknown_keys")):
            return ()
        return (
            f"{ckpt.path.name} sets {', '.join(keys)}: forq computes as if they were absent, and so does llama.cpp",
        )


format = GGUF()


def _types(ckpt: Checkpoint) -> dict[str, Kind]:
    types: Mapping[str, str] = ckpt.config["quantization_config"]["types"]
    return {name: BY_NAME[kind] for name, kind in types.items()}


def _spec(ckpt: Checkpoint, name: str, kind: Kind) -> LayerSpec:
    module = name.removesuffix(".weight")
    rows, blocks = ckpt.info[f"{name}.d"].shape
    live = tuple(Live(f"{name}.{field.name}", torch.float16) for field in kind.live)
    tensors = [f"{name}.{field.name}" for field in kind.fields]
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        info = ckpt.info[bias]
        if info.shape != (rows,) or not info.dtype.is_floating_point:
            raise FormatError(f"{bias}: expected floats of shape {(rows,)}, found {info.dtype} of shape {info.shape}")
        tensors.append(bias)
    return LayerSpec(module, blocks * kind.size, rows, kind.bits, kind.size, live, bias, tuple(tensors))


def _turned(scales: Tensor) -> Tensor:
    """(out, groups) → (groups, out)."""
    return scales.t()


def _codes(qs: Tensor, kind: Kind) -> Tensor:
    """The field qs (out, blocks, bytes) → codes as :class:`QuantWeight` keeps them: offset binary, in order."""
    if kind.bits == 8:
        return (qs.view(torch.uint8) ^ 128).flatten(1)
    return pack(taken_apart(qs, kind).flatten(1), kind.bits)


def _as_they_are(codes: Tensor) -> Tensor:
    """Blocks are kept as the file has them."""
    return codes


def _filed(codes: Tensor, kind: Kind) -> Tensor:
    """The inverse; in bytes a code each no more than some rows at a time."""
    if kind.bits == 8:
        return (codes ^ 128).view(torch.int8).view(len(codes), -1, kind.size)
    blocks = codes.shape[1] * 8 // kind.bits // kind.size
    out = torch.empty(len(codes), blocks, kind.size * kind.bits // 8, dtype=torch.uint8)
    some = max(1, _CHUNK // (blocks * kind.size))
    for start in range(0, len(codes), some):
        whole = unpack(codes[start : start + some], kind.bits)
        out[start : start + some] = put_together(whole.view(len(whole), -1, kind.size), kind)
    return out
