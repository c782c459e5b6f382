"""GGUF from the command line: one file in, a file of its name out, by every command, named by file or by folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf import header as _gguf_header
from forq.checkpoints.containers.gguf.kinds import BY_NAME, NUMBERS
from tests import tiny_lm
from tests.fixtures.gguf import blocks
from tests.fixtures.gguf_write import write_gguf

OPTIONS = ("--task", "text", "--set", "task.max_length=32", "--set", "task.validation_rows=16")
OPTIONS = (*OPTIONS, "--set", "task.test_rows=16", "--steps", "12", "--eval-every", "6")
VOCABULARY = 300


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one block, tied, in three types, with a vocabulary it can read text by; another beside it."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "tiny-q8.gguf").write_bytes(b"another quantization")
    return model(folder / "tiny-q4.gguf", 32, ("Q8_0", "Q4_0", "Q5_1"))


def model(path: Path, width: int, types: tuple[str, ...]) -> Path:
    """The file; its matrices take the types in turn."""
    told = json.loads(tiny_lm.tokenizer(vocabulary=VOCABULARY).backend_tokenizer.to_str())["model"]
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 256,
        "llama.embedding_length": width,
        "llama.feed_forward_length": 2 * width,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": sorted(told["vocab"], key=told["vocab"].get),
        "tokenizer.ggml.token_type": [3, 3, *[1] * (len(told["vocab"]) - 2)],
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in told["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
    }
    half, twice = width // 2, 2 * width
    shapes = {"token_embd": (VOCABULARY, width), "blk.0.attn_q": (width, width), "blk.0.attn_k": (half, width)}
    shapes |= {"blk.0.attn_v": (half, width), "blk.0.attn_output": (width, width)}
    shapes |= {"blk.0.ffn_gate": (twice, width), "blk.0.ffn_up": (twice, width), "blk.0.ffn_down": (width, twice)}
    tensors: list[Any] = []
    for turn, (name, shape) in enumerate(shapes.items()):
        kind = BY_NAME[types[turn % len(types)]]
        raw = blocks(kind, shape, torch.Generator().manual_seed(turn))
        tensors.append((f"{name}.weight", NUMBERS[kind.name], shape, raw))
    for norm in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        tensors.append((f"{norm}.weight", 0, (width,), torch.ones(width)))
    write_gguf(path, values, tensors)
    return path


def changed(one: Path, other: Path) -> set[str]:
    """Fields of blocks in which two files differ; they differ nowhere else."""
    a, b = torch.tensor(list(one.read_bytes())), torch.tensor(list(other.read_bytes()))
    differs, found = a != b, set()
    for name, info in Checkpoint.open(one).info.items():
        size, pitch = info.piece or info.nbytes, info.pitch or info.nbytes
        places = torch.arange(info.start, info.start + info.span, pitch)[:, None] + torch.arange(size)
        if differs[places].any():
            found.add(name.rpartition(".")[2])
        differs[places] = False
    assert not differs.any()
    return found


@pytest.mark.parametrize(("move", "recipe", "fields"), [("scales", "qzo", {"d", "m"}), ("codes", "zoqo", {"qs"})])
def test_a_run_is_saved_resumed_verified_and_replayed(move, recipe, fields, file, text, tmp_path, forq) -> None:
    how = ("--data", text, *OPTIONS, "--recipe", recipe, "--move", move)
    done = forq("tune", file, "--out", tmp_path / "run", *how)
    assert done.returncode == 0, done.stderr
    saved = tmp_path / "run" / "checkpoint" / "tiny-q4.gguf"
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert changed(file, saved) == fields
    assert _gguf_header.read(saved) == _gguf_header.read(file)

    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "config.toml").write_bytes((tmp_path / "run" / "config.toml").read_bytes())
    rows = (tmp_path / "run" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "journal.jsonl").write_bytes(b"".join(rows[: len(rows) // 2]))
    (cut / "state").mkdir()
    again = forq("tune", file, "--out", cut, "--resume", "--data", text)
    assert again.returncode == 0, again.stderr
    assert (cut / "checkpoint" / saved.name).read_bytes() == saved.read_bytes()

    assert "yes" in forq("verify", tmp_path / "run", "--base", file).stdout
    for base, out in ((file, "replayed"), (saved.parent, "other")):
        replayed = forq("replay", tmp_path / "run", "--base", base, "--out", tmp_path / out)
        assert (replayed.returncode == 0) == (base == file)
    assert (tmp_path / "replayed" / saved.name).read_bytes() == saved.read_bytes()


def test_types_whose_codes_stand_still_are_tuned_by_their_scales(text, tmp_path, forq) -> None:
    types = ("IQ4_XS", "IQ3_S", "IQ2_XXS", "IQ1_M", "TQ1_0", "IQ4_NL")
    file = model(tmp_path / "iq.gguf", 256, types)
    done = forq("tune", file, "--out", tmp_path / "run", "--data", text, *OPTIONS[:-4], "--steps", "2")
    assert done.returncode == 0, done.stderr
    saved = tmp_path / "run" / "checkpoint" / "iq.gguf"
    assert _gguf_header.read(saved) == _gguf_header.read(file)
    assert {name.rpartition(".")[2] for name in moved(file, saved)} == {"d"} and len(moved(file, saved)) == 8
    assert "yes" in forq("verify", tmp_path / "run", "--base", file).stdout
    forq("replay", tmp_path / "run", "--base", file, "--out", tmp_path / "replayed")
    assert (tmp_path / "replayed" / "iq.gguf").read_bytes() == saved.read_bytes()


def moved(one: Path, other: Path) -> set[str]:
    """Tensors of a checkpoint in which two files differ."""
    a, b = Checkpoint.open(one), Checkpoint.open(other)
    return {name for name in a.info if not torch.equal(a.read(name), b.read(name))}


def test_a_file_and_a_folder_of_one_are_scored_alike(file, text, tmp_path, forq) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / file.name).write_bytes(file.read_bytes())
    losses = []
    for name in (file, tmp_path / "alone"):
        done = forq("eval", name, "--data", text, *OPTIONS[:4], "--json")
        assert done.returncode == 0, done.stderr
        losses.append(json.loads(done.stdout)["loss"])
    assert losses[0] == losses[1] and math.isfinite(losses[0])


def test_inspect_says_what_can_move(file, forq) -> None:
    told = json.loads(forq("inspect", file, "--json").stdout)
    weights = {"Q8_0": 300 * 32 + 16 * 32 + 64 * 32, "Q4_0": 32 * 32 + 32 * 32 + 32 * 64, "Q5_1": 16 * 32 + 64 * 32}
    assert told["format"] == "gguf" and told["quantized"] == sum(weights.values())
    assert told["widths"] == [4, 5, 8] and "gguf, 4, 5, 8 bits, group 32" in forq("inspect", file).stdout
    assert told["moves"]["codes"] == sum(weights.values())
    # m of Q5_1 moves beside d.
    assert told["moves"]["scales"] == (sum(weights.values()) + weights["Q5_1"]) // 32
