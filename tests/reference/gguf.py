"""GGUF from the raw bytes of a file, in float64 NumPy: the header walked, every value of a block cut out on its own."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import gguf
import numpy as np

SIZES = {2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)}
SIZES |= {16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82)}
SIZES |= {23: (256, 136), 29: (256, 56), 34: (256, 54), 35: (256, 66)}
SIZES |= {10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210)}
PARTS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
PARTS |= {"attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
PARTS |= {"ffn_down": "mlp.down_proj"}
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def file_of(path: Path) -> Path:
    return path if path.is_file() else next(path.glob("*.gguf"))


def header(path: Path) -> tuple[dict, dict]:
    """Values by key; and of every tensor its dimensions as the file has them, its type and its first byte."""
    data, at = file_of(path).read_bytes(), 4

    def take(form: str):
        nonlocal at
        (value,) = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value

    def text() -> str:
        nonlocal at
        length = take("Q")
        at += length
        return data[at - length : at].decode()

    def value(kind: int):
        if kind == 8:
            return text()
        if kind == 9:
            inner, length = take("I"), take("Q")
            return [value(inner) for _ in range(length)]
        return take(SCALARS[kind])

    take("I")
    tensors, values = take("Q"), take("Q")
    held = {}
    for _ in range(values):
        key = text()
        held[key] = value(take("I"))
    placed = {}
    for _ in range(tensors):
        name = text()
        dims = [take("Q") for _ in range(take("I"))]
        placed[name] = (dims, take("I"), take("Q"))
    base = -(-at // 32) * 32
    return held, {name: (dims, kind, base + start) for name, (dims, kind, start) in placed.items()}


def modules(path: Path) -> list[str]:
    """Names of the layers in blocks, as transformers calls them; the embedding is no layer."""
    found = []
    for name, (_, kind, _) in header(path)[1].items():
        parts = name.split(".")
        if kind in SIZES and parts[0] == "blk":
            found.append(f"model.layers.{parts[1]}.{PARTS[parts[2]]}")
        elif kind in SIZES and parts[0] == "output":
            found.append("lm_head")
    return found


def dequantise(path: Path, module: str) -> np.ndarray:
    """float64 (out, in), rows in transformers' order."""
    held, placed = header(path)
    own = {f"model.layers.0.{theirs}": f"blk.0.{ours}.weight" for ours, theirs in PARTS.items()}
    name = {**own, "lm_head": "output.weight", "embedding": "token_embd.weight"}[module]
    dims, kind, start = placed[name]
    size, nbytes = SIZES[kind]
    columns, rows = dims
    data = file_of(path).read_bytes()
    found = np.empty((rows, columns))
    for row in range(rows):
        for block in range(columns // size):
            at = start + (row * (columns // size) + block) * nbytes
            found[row, block * size : (block + 1) * size] = BLOCKS[kind](data[at : at + nbytes])
    if held["general.architecture"] == "llama" and module.endswith(("q_proj", "k_proj")):
        heads = held["llama.attention.head_count" + ("_kv" if module.endswith("k_proj") else "")]
        half = rows // heads // 2
        # Row 2i + j of a head in the file is row i + j·half in transformers.
        order = [h * 2 * half + 2 * i + j for h in range(heads) for j in range(2) for i in range(half)]
        found = found[order]
    return found


def f16(data: bytes) -> float:
    return float(np.frombuffer(data, "<f2")[0])


def q4_0(b: bytes) -> list[float]:
    d, qs = f16(b[:2]), b[2:]
    return [d * ((qs[i] & 15) - 8) for i in range(16)] + [d * ((qs[i] >> 4) - 8) for i in range(16)]


def q4_1(b: bytes) -> list[float]:
    d, m, qs = f16(b[:2]), f16(b[2:4]), b[4:]
    return [d * (qs[i] & 15) + m for i in range(16)] + [d * (qs[i] >> 4) + m for i in range(16)]


def fives(qh: bytes, qs: bytes) -> list[int]:
    high = int.from_bytes(qh, "little")
    low = [qs[i] & 15 for i in range(16)] + [qs[i] >> 4 for i in range(16)]
    return [q + 16 * (high >> i & 1) for i, q in enumerate(low)]


def q5_0(b: bytes) -> list[float]:
    return [f16(b[:2]) * (q - 16) for q in fives(b[2:6], b[6:])]


def q5_1(b: bytes) -> list[float]:
    return [f16(b[:2]) * q + f16(b[2:4]) for q in fives(b[4:8], b[8:])]


def q8_0(b: bytes) -> list[float]:
    return [f16(b[:2]) * q for q in np.frombuffer(b[2:], np.int8).tolist()]


def six_bits(packed: bytes, j: int) -> tuple[int, int]:
    """ggml's get_scale_min_k4."""
    if j < 4:
        return packed[j] & 63, packed[j + 4] & 63
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4
    return scale, (packed[j + 4] >> 4) | (packed[j] >> 6) << 4


def q4_k(b: bytes) -> list[float]:
    d, dmin, packed, qs = f16(b[:2]), f16(b[2:4]), b[4:16], b[16:]
    found = []
    for j in range(8):
        scale, less = six_bits(packed, j)
        for i in range(32):
            byte = qs[32 * (j // 2) + i]
            found.append(d * scale * (byte >> 4 if j % 2 else byte & 15) - dmin * less)
    return found


def q5_k(b: bytes) -> list[float]:
    d, dmin, packed, qh, qs = f16(b[:2]), f16(b[2:4]), b[4:16], b[16:48], b[48:]
    found = []
    for j in range(8):
        scale, less = six_bits(packed, j)
        for i in range(32):
            byte = qs[32 * (j // 2) + i]
            code = (byte >> 4 if j % 2 else byte & 15) + 16 * (qh[i] >> j & 1)
            found.append(d * scale * code - dmin * less)
    return found


def q6_k(b: bytes) -> list[float]:
    ql, qh, scales, d = b[:128], b[128:192], np.frombuffer(b[192:208], np.int8), f16(b[208:])
    found = [0.0] * 256
    for half in range(2):
        for i in range(32):
            one, two, high = ql[64 * half + i], ql[64 * half + 32 + i], qh[32 * half + i]
            for part, low in enumerate((one & 15, two & 15, one >> 4, two >> 4)):
                code = (low | (high >> 2 * part & 3) << 4) - 32
                place = 128 * half + 32 * part + i
                found[place] = d * int(scales[place // 16]) * code
    return found


def q2_k(b: bytes) -> list[float]:
    scales, qs, d, dmin = b[:16], b[16:80], f16(b[80:82]), f16(b[82:84])
    found = [0.0] * 256
    for place in range(256):
        half, part, i = place // 128, place % 128 // 32, place % 32
        code, both = qs[32 * half + i] >> 2 * part & 3, scales[place // 16]
        found[place] = d * (both & 15) * code - dmin * (both >> 4)
    return found


def q3_k(b: bytes) -> list[float]:
    mask, qs, packed, d = b[:32], b[32:96], b[96:108], f16(b[108:])
    found = [0.0] * 256
    for place in range(256):
        half, part, i, group = place // 128, place % 128 // 32, place % 32, place // 16
        low = packed[group % 8] >> 4 if group >= 8 else packed[group]
        scale = (low & 15 | (packed[8 + group % 4] >> 2 * (group // 4) & 3) << 4) - 32
        code = (qs[32 * half + i] >> 2 * part & 3) - (0 if mask[i] >> (4 * half + part) & 1 else 4)
        found[place] = d * scale * code
    return found


LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]


def iq4_nl(b: bytes) -> list[float]:
    return [f16(b[:2]) * LEVELS[q >> shift & 15] for shift in (0, 4) for q in b[2:]]


def iq4_xs(b: bytes) -> list[float]:
    d, high, low, qs = f16(b[:2]), int.from_bytes(b[2:4], "little"), b[4:8], b[8:]
    found = []
    for j in range(8):
        scale = (low[j // 2] >> 4 * (j % 2) & 15 | (high >> 2 * j & 3) << 4) - 32
        found += [d * scale * LEVELS[q >> shift & 15] for shift in (0, 4) for q in qs[16 * j : 16 * j + 16]]
    return found


@cache
def grid(name: str) -> np.ndarray:
    """The table of a type, of the package gguf."""
    kind = getattr(gguf.quants, name)
    kind.init_grid()
    return kind.grid.reshape(kind.grid_shape).astype(np.float64)


def signed(values: np.ndarray, signs: int) -> list[float]:
    return [-value if signs >> i & 1 else value for i, value in enumerate(values.tolist())]


def even(seven: int) -> int:
    return seven | seven.bit_count() % 2 << 7


def word(b: bytes, place: int, size: int) -> int:
    return int.from_bytes(b[size * place : size * (place + 1)], "little")


def iq2_xxs(b: bytes) -> list[float]:
    found = []
    for j in range(8):
        own = b[2 + 8 * j : 10 + 8 * j]
        high = word(own, 1, 4)
        for k in range(4):
            row = signed(grid("IQ2_XXS")[own[k]], even(high >> 7 * k & 127))
            found += [f16(b[:2]) * (0.5 + (high >> 28)) / 4 * x for x in row]
    return found


def iq2_xs(b: bytes) -> list[float]:
    found = []
    for k in range(32):
        code, scale = word(b[2:66], k, 2), b[66 + k // 4] >> 4 * (k // 2 % 2) & 15
        row = signed(grid("IQ2_XS")[code & 511], even(code >> 9))
        found += [f16(b[:2]) * (0.5 + scale) / 4 * x for x in row]
    return found


def iq2_s(b: bytes) -> list[float]:
    found = []
    for k in range(32):
        code = b[2 + k] | (b[66 + k // 4] >> 2 * (k % 4) & 3) << 8
        scale = b[74 + k // 4] >> 4 * (k // 2 % 2) & 15
        found += [f16(b[:2]) * (0.5 + scale) / 4 * x for x in signed(grid("IQ2_S")[code], b[34 + k])]
    return found


def iq3_xxs(b: bytes) -> list[float]:
    found = []
    for k in range(64):
        high = word(b[66:], k // 8, 4)
        signs = even(high >> 7 * (k % 8 // 2) & 127) >> 4 * (k % 2)
        found += [f16(b[:2]) * (0.5 + (high >> 28)) / 2 * x for x in signed(grid("IQ3_XXS")[b[2 + k]], signs)]
    return found


def iq3_s(b: bytes) -> list[float]:
    found = []
    for k in range(64):
        code = b[2 + k] | (b[66 + k // 8] >> k % 8 & 1) << 8
        scale = b[106 + k // 16] >> 4 * (k // 8 % 2) & 15
        found += [f16(b[:2]) * (1 + 2 * scale) * x for x in signed(grid("IQ3_S")[code], b[74 + k // 2] >> 4 * (k % 2))]
    return found


def iq1_s(b: bytes) -> list[float]:
    found = []
    for k in range(32):
        high = word(b[34:], k // 4, 2)
        shift = -0.125 if high >> 15 else 0.125
        row = grid("IQ1_S")[b[2 + k] | (high >> 3 * (k % 4) & 7) << 8]
        found += (f16(b[:2]) * (2 * (high >> 12 & 7) + 1) * (row + shift)).tolist()
    return found


def iq1_m(b: bytes) -> list[float]:
    words = [word(b[48:], place, 2) for place in range(4)]
    d = f16(sum((each >> 12) << 4 * place for place, each in enumerate(words)).to_bytes(2, "little"))
    found = []
    for k in range(32):
        high = b[32 + k // 2] >> 4 * (k % 2) & 15
        scale = words[k // 8] >> 3 * (k // 2 % 4) & 7
        row = grid("IQ1_M")[b[k] | (high & 7) << 8]
        found += (d * (2 * scale + 1) * (row + (-0.125 if high >> 3 else 0.125))).tolist()
    return found


def tq1_0(b: bytes) -> list[float]:
    digits = [
        (first, size, place) for first, size, most in ((0, 32, 5), (32, 16, 5), (48, 4, 4)) for place in range(most)
    ]
    return [f16(b[52:]) * ((q * 3**place % 256 * 3 >> 8) - 1) for at, size, place in digits for q in b[at : at + size]]


def tq2_0(b: bytes) -> list[float]:
    return [f16(b[64:]) * ((q >> shift & 3) - 1) for at in (0, 32) for shift in (0, 2, 4, 6) for q in b[at : at + 32]]


BLOCKS = {16: iq2_xxs, 17: iq2_xs, 18: iq3_xxs, 19: iq1_s, 20: iq4_nl, 21: iq3_s, 22: iq2_s, 23: iq4_xs, 29: iq1_m}
BLOCKS |= {34: tq1_0, 35: tq2_0}
BLOCKS |= {2: q4_0, 3: q4_1, 6: q5_0, 7: q5_1, 8: q8_0, 10: q2_k, 11: q3_k, 12: q4_k, 13: q5_k, 14: q6_k}
