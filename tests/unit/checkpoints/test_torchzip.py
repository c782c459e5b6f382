"""Files of torch.save: read as torch reads them without running anything, refused where they are damaged or a trap."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from forq.checkpoints.containers.torch_save import contents, flat, pickled, records
from forq.errors import FormatError

HELD: dict[str, Any] = {
    "a": {"weight": torch.arange(12.0).view(3, 4), "half": torch.ones(5, dtype=torch.float16), "nbits": 4},
    "b": {"parameter": torch.nn.Parameter(torch.zeros(2, 0), requires_grad=False), "shape": torch.Size((3, 4))},
    "c": OrderedDict(),
    "d": {"dtype": torch.bfloat16, "none": None, "yes": True, "text": "4bit_u8", "part": 1.58, "big": -(1 << 40)},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(HELD, tmp_path / "qmodel.pt")
    return tmp_path / "qmodel.pt"


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def rezipped(file: Path, change: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    """The same records written by Python's own library, some replaced."""
    out = file.with_name("rezipped.pt")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, "w", how) as new:
        for name in old.namelist():
            new.writestr(name, change.get(name, old.read(name)))
    return out


def test_tensors_and_values_are_those_torch_reads(file: Path) -> None:
    found = contents(file, {})
    want = torch.load(file, weights_only=True)
    tensors = {f"{m}.{k}": v for m, held in want.items() for k, v in held.items() if isinstance(v, torch.Tensor)}
    assert set(found.info) == set(tensors)
    with file.open("rb") as stream:
        for name, tensor in tensors.items():
            assert torch.equal(found.info[name].read(stream), tensor)
    assert found.values["a.nbits"] == 4 and found.values["b.shape"] == (3, 4)
    assert found.values["d.dtype"] == "torch.bfloat16" and found.values["d.big"] == -(1 << 40)
    assert found.values["d.yes"] is True and found.values["d.none"] is None and found.values["d.part"] == 1.58


def test_a_mended_copy_has_the_checksums_python_checks(file: Path) -> None:
    found = contents(file, {})
    assert found.mend is not None
    before = file.read_bytes()
    found.mend(file.parent)
    assert file.read_bytes() == before
    with file.open("r+b") as stream:
        found.info["a.weight"].write(stream, torch.full((3, 4), 7.0))
    with zipfile.ZipFile(file) as broken:
        assert broken.testzip() is not None
    found.mend(file.parent)
    with zipfile.ZipFile(file) as whole:
        assert whole.testzip() is None
    assert bool((torch.load(file, weights_only=True)["a"]["weight"] == 7).all())


def test_a_zip_of_another_writer_is_read_and_mended_too(file: Path) -> None:
    other = rezipped(file, {})
    found = contents(other, {})
    with other.open("r+b") as stream:
        found.info["a.weight"].write(stream, torch.full((3, 4), 7.0))
    assert found.mend is not None
    found.mend(other.parent)
    with zipfile.ZipFile(other) as whole:
        assert whole.testzip() is None


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.where),)


def test_a_call_of_anything_else_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "qmodel.pt", {"a": Trap(tmp_path / "ran")})
    with pytest.raises(FormatError, match="nothing of it was run"):
        contents(path, {})
    assert not (tmp_path / "ran").exists()


def test_compressed_records_are_refused(file: Path) -> None:
    with pytest.raises(FormatError, match="compressed"):
        contents(rezipped(file, {}, zipfile.ZIP_DEFLATED), {})


def test_a_view_that_does_not_lie_end_to_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="end to end"):
        contents(saved(tmp_path / "qmodel.pt", {"a": torch.zeros(3, 4).t()}), {})


def test_part_of_a_storage_is_its_own_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path / "qmodel.pt", {"a": torch.arange(12.0)[4:8]})
    with path.open("rb") as stream:
        assert contents(path, {}).info["a"].read(stream).tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("size", [0, 10, 21, 40, 300, -1, -30, -90, -500])
def test_a_file_that_is_cut_off_is_refused(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(FormatError, match=r"qmodel\.pt"):
        contents(file, {})


def test_a_record_that_reaches_beyond_the_file_is_refused(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<2I", raw, entry + 20, 1 << 30, 1 << 30)
    file.write_bytes(raw)
    with pytest.raises(FormatError, match="inside the file"):
        records(file)


def test_a_tensor_larger_than_its_record_is_refused(file: Path) -> None:
    with zipfile.ZipFile(file) as old:
        index = old.read("qmodel/data.pkl")
    wide = index.replace(b"K\x05\x85", b"M\xff\xff\x85")  # the shape (5,)
    assert wide != index
    with pytest.raises(FormatError, match="bytes in record"):
        contents(rezipped(file, {"qmodel/data.pkl": wide}), {})


def test_dictionaries_that_share_themselves_do_not_unfold_for_ever() -> None:
    inner: Any = 1
    for _ in range(7):
        inner = {f"k{place}": inner for place in range(60)}
    with pytest.raises(FormatError, match="entries"):
        flat(pickled.read(pickle.dumps(inner, 2)))
    selfish: dict[str, Any] = {}
    selfish["me"] = selfish
    with pytest.raises(FormatError, match="deep"):
        flat(pickled.read(pickle.dumps(selfish, 2)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x02.",
        b"\x80\x02}q\x00",
        b"\x80\x02h\x05.",
        b"\x80\x02}u.",
        b"\x80\x02(u.",
        b"\x80\x02\x86.",
        b"\x80\x02NQ.",
        b"\x80\x02}K\x01K\x02s.",
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00)\x86tR.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        pickle.dumps({(1, 2): 3}, 2),
        pickle.dumps({1, 2}, 2),
        pickle.dumps(object(), 2),
    ],
)
def test_no_pickle_does_anything_but_raise(data: bytes) -> None:
    if data == b"\x80\x02\x86.":  # two things of an empty stack
        assert pickled.read(data) == ()
        return
    with pytest.raises(FormatError):
        pickled.read(data)
