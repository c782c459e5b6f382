"""A float pipeline's transformer as a GGUF file, as converters for Stable Diffusion 3 write it, by gguf-py.

    python experiments/diffusion/sd3_gguf.py PIPELINE OUT --kind Q4_0

Names are Stable Diffusion 3's own: queries, keys and values in one matrix, and where a layer makes a shift and a scale
alone the shift comes first. Every matrix in whole blocks is quantized; all else is float32.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

from forq.checkpoints.containers.gguf.sd3 import INSIDE, OUTSIDE

WEIGHTS = "diffusion_pytorch_model.safetensors"


def original(held: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors by diffusers' names → by Stable Diffusion 3's, in no special order."""
    outside = {place: name for name, place in OUTSIDE.items()}
    inside = {places: name for name, places in INSIDE.items()}
    depth = 1 + max(int(name.split(".")[1]) for name in held if name.startswith("transformer_blocks."))
    last = f"transformer_blocks.{depth - 1}.norm1_context.linear"
    for full, value in held.items():
        head, _, own = full.rpartition(".")
        if head in ("norm_out.linear", last):
            value = np.roll(value, len(value) // 2, axis=0)
        block = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", head)
        if full == "pos_embed.pos_embed":
            yield "pos_embed", value
        elif block is None:
            yield f"{outside.get(head, head)}.{own}", value
        else:
            for places, name in inside.items():
                if block[2] == places[0]:
                    parts = [held[f"transformer_blocks.{block[1]}.{place}.{own}"] for place in places]
                    whole = np.concatenate(parts) if len(parts) > 1 else value
                    yield f"joint_blocks.{block[1]}.{name}.{own}", whole


def write(source: Path, out: Path, kind: str = "Q4_0", name: str = "transformer.gguf", prefix: str = "") -> Path:
    """Copy a pipeline's folder with a GGUF file in place of its transformer's safetensors."""
    scratch = out.with_name(f".{out.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch)
    writer = gguf.GGUFWriter(scratch / "transformer" / name, "sd3")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    made = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[made][0]
    for tensor, value in original(load_file(scratch / "transformer" / WEIGHTS)):
        value = np.ascontiguousarray(value, dtype=np.float32)
        if value.ndim == 2 and value.shape[1] % size == 0:
            writer.add_tensor(prefix + tensor, gguf.quants.quantize(value, made), raw_dtype=made)
        else:
            writer.add_tensor(prefix + tensor, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (scratch / "transformer" / WEIGHTS).unlink()
    return scratch.replace(out)


if __name__ == "__main__":
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("pipeline", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--kind", default="Q4_0")
    told = args.parse_args()
    write(told.pipeline, told.out, told.kind)
