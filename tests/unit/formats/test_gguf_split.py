"""GGUF: a model in several files, as gguf-py writes them, and the file that reads images beside one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.models.load import load
from forq.models.space import space
from forq.scalars.moves import Move, Term, direction_seed
from tests.fixtures.gguf_architectures import made, write

IDS = torch.tensor([[1, 5, 9, 2, 40, 33, 5, 63]])
TYPES = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole" / "tiny.gguf", "qwen3", made("qwen3"), TYPES)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The first of four files."""
    return write(tmp_path / "parts" / "tiny.gguf", "qwen3", made("qwen3"), TYPES, split=7)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("tiny-0000?-of-00004.gguf"))


def test_the_files_are_one_checkpoint(first: Path, whole: Path) -> None:
    assert len(parts(first.parent)) == 4
    one = Checkpoint.open(whole)
    for named in (first, first.parent):
        ckpt = Checkpoint.open(named)
        assert ckpt.path == first and ckpt.digest() == one.digest() and ckpt.config == one.config
        assert {info.file for info in ckpt.info.values()} == {file.name for file in parts(first.parent)}


def test_a_move_is_written_into_each_file_of_a_copy(first: Path, whole: Path, tmp_path: Path) -> None:
    saved: list[Any] = []
    for file in (first, whole):
        moving = space(load(file, device="cpu", kernel="reference"), "scales")
        moving.apply(Move((Term(direction_seed(0, 0), 0.05),)))
        saved.append(Checkpoint.open(file).save_patched(tmp_path / f"{file.stem}-saved", moving.exported()).path)
    copies = parts(saved[0])
    assert len(copies) == 4
    for before, after in zip(parts(first.parent), copies, strict=True):
        assert before.stat().st_size == after.stat().st_size and before.read_bytes() != after.read_bytes()
    assert Checkpoint.open(saved[0]).digest() == Checkpoint.open(saved[1]).digest() != Checkpoint.open(whole).digest()
    with torch.no_grad():
        logits = [load(path, device="cpu")(IDS).logits for path in saved]
    assert torch.equal(*logits)


def test_a_later_file_names_the_first(first: Path) -> None:
    with pytest.raises(FormatError, match=r"the first of 4 files, found number 3; name .*tiny-00001-of-00004\.gguf"):
        Checkpoint.open(first.with_name("tiny-00003-of-00004.gguf"))


def test_a_missing_file_is_named(first: Path) -> None:
    first.with_name("tiny-00002-of-00004.gguf").unlink()
    with pytest.raises(FormatError, match=r"expected 4 files, found no tiny-00002-of-00004\.gguf"):
        Checkpoint.open(first)


def test_files_in_another_order_are_refused(first: Path) -> None:
    one, two = (first.with_name(f"tiny-0000{number}-of-00004.gguf") for number in (2, 3))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    with pytest.raises(FormatError, match=r"tiny-00002.*expected split.no 1, found 2"):
        Checkpoint.open(first)


def test_files_of_another_model_are_refused(first: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other" / "tiny.gguf", "qwen2", made("qwen2"), TYPES, split=8)
    shutil.copyfile(other.with_name("tiny-00002-of-00004.gguf"), first.with_name("tiny-00002-of-00004.gguf"))
    with pytest.raises(FormatError, match=r"expected split.tensors.count 25 as in the first file, found 27"):
        Checkpoint.open(first)


def test_a_file_with_another_name_is_refused(first: Path) -> None:
    first.rename(first.with_name("model.gguf"))
    with pytest.raises(FormatError, match=r"a name that ends in -00001-of-00004\.gguf, since split.count is 4"):
        Checkpoint.open(first.with_name("model.gguf"))


def test_a_truncated_file_is_named(first: Path) -> None:
    last = first.with_name("tiny-00004-of-00004.gguf")
    last.write_bytes(last.read_bytes()[:-64])
    with pytest.raises(FormatError, match=r"tiny-00004-of-00004\.gguf: .*truncated or damaged"):
        Checkpoint.open(first)


def test_what_reads_images_beside_a_model_is_left_out_and_named(whole: Path, tmp_path: Path) -> None:
    beside = whole.with_name("mmproj-tiny-f16.gguf")
    gguf_writer = gguf.GGUFWriter(beside, "clip")
    gguf_writer.write_header_to_file()
    gguf_writer.write_kv_data_to_file()
    gguf_writer.write_tensors_to_file()
    gguf_writer.close()
    model = load(whole.parent, device="cpu")
    assert model.checkpoint.path == whole
    assert model.unlike == ("forq reads text alone: mmproj-tiny-f16.gguf beside the model is neither read nor copied",)
    with pytest.raises(FormatError, match=r"found 'clip', the part of a model that reads images"):
        Checkpoint.open(beside)
