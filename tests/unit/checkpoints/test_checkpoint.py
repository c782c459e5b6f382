"""A checkpoint folder: read as safetensors reads it, saved byte for byte, refused with reasons."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from forq.checkpoints import Checkpoint
from forq.checkpoints import patch as patch_module
from forq.errors import ConfigError, FormatError
from forq.models.convert.quantize import quantize
from tests import tiny_checkpoints


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.folder(tmp_path_factory.mktemp("sharded") / "x", "llama", torch.bfloat16, "60KB")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.folder(tmp_path_factory.mktemp("single") / "x", "llama", torch.bfloat16)


@pytest.fixture
def copied(single: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(single, tmp_path / "copied"))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_reads_what_safetensors_reads(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    ckpt = Checkpoint.open(folder)
    seen = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  not a dict
                want = file.get_tensor(name)
                got = ckpt.read(name)
                assert got.dtype == want.dtype == ckpt.info[name].dtype and torch.equal(got, want)
                seen.add(name)
    assert seen == set(ckpt.info)
    files = {path.name for path in folder.glob("*.safetensors")}
    assert set_of_files(ckpt) == files and (len(files) > 1) == (kind == "sharded")


def set_of_files(ckpt: Checkpoint) -> set[str]:
    return {info.file for info in ckpt.info.values()}


def test_the_digest_names_the_content_and_not_the_files(single: Path, sharded: Path, tmp_path: Path) -> None:
    one, other = Checkpoint.open(single), Checkpoint.open(sharded)
    assert one.digest() == other.digest() and len(one.digest()) == 64
    name = "model.norm.weight"
    value = one.read(name)
    value.view(torch.int16)[3] ^= 1
    one.save_patched(tmp_path / "out", {name: value})
    assert Checkpoint.open(tmp_path / "out").digest() != one.digest()


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_a_save_writes_the_bytes_of_the_moved_tensors_and_no_other(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(kind)
    ckpt = Checkpoint.open(folder)
    before = contents(folder)
    for name, info in ckpt.info.items():
        moved = -ckpt.read(name) - 1
        report = ckpt.save_patched(tmp_path / "out", {name: moved}, overwrite=True)
        want = dict(before)
        data = bytearray(want[info.file])
        data[info.start : info.start + info.nbytes] = moved.view(torch.int16).numpy().tobytes()
        want[info.file] = bytes(data)
        assert contents(tmp_path / "out") == want
        assert (report.tensors, report.bytes_written, report.max_rounding) == ((name,), info.nbytes, 0.0)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_float32_is_rounded_to_the_file_and_the_report_says_how_much(single: Path, tmp_path: Path) -> None:
    ckpt = Checkpoint.open(single)
    name = "model.norm.weight"
    wide = torch.full((64,), 1.0)
    wide[0] = 1.0 + 2.0**-9
    report = ckpt.save_patched(tmp_path / "out", {name: wide})
    assert report.max_rounding == pytest.approx(2.0**-9 / (1 + 2.0**-9))
    assert torch.equal(Checkpoint.open(tmp_path / "out").read(name), wide.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.zeros(65), "expected shape"),
        (torch.zeros(64, dtype=torch.float16), "expected torch.bfloat16"),
        (torch.zeros(64, dtype=torch.int32), "expected torch.bfloat16"),
        (torch.full((64,), float("nan")), "finite"),
        (torch.full((64,), float("nan"), dtype=torch.bfloat16), "finite"),
        (torch.full((64,), float("inf"), dtype=torch.bfloat16), "finite"),
        (torch.full((64,), 3.4e38, dtype=torch.float64) * 2, "finite"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(single: Path, tmp_path: Path, value: torch.Tensor, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        Checkpoint.open(single).save_patched(tmp_path / "out", {"model.norm.weight": value})
    assert not list(tmp_path.iterdir())


def test_an_unknown_tensor_is_refused(single: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"'model\.nrom"):
        Checkpoint.open(single).save_patched(tmp_path / "out", {"model.nrom": torch.zeros(1)})


def test_other_files_come_along_but_not_git_caches_and_locks(copied: Path, tmp_path: Path) -> None:
    kept = {"generation_config.json": b"{}", "original/params.json": b"[1]", "README.md": b"hello"}
    for name in (*kept, ".git/config", ".cache/huggingface/x.lock", "model.safetensors.lock"):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes(kept.get(name, b"no"))
    Checkpoint.open(copied).save_patched(tmp_path / "out", {}, {"forq/journal.txt": b"lines"})
    found = contents(tmp_path / "out")
    assert kept.items() <= found.items() and found["forq/journal.txt"] == b"lines"
    assert not [name for name in found if "git/" in name or "cache" in name or "lock" in name]


def test_a_folder_of_links_as_the_hub_keeps_it_is_saved_as_files(single: Path, tmp_path: Path) -> None:
    links = tmp_path / "snapshot"
    links.mkdir()
    for path in single.iterdir():
        (links / path.name).symlink_to(path)
    before = contents(single)
    Checkpoint.open(links).save_patched(tmp_path / "out", {"model.norm.weight": torch.ones(64)})
    assert contents(single) == before and set(contents(tmp_path / "out")) == set(before)
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_symlink()]


@pytest.mark.parametrize("name", ["config.json", "../x", "/tmp/x", "model.safetensors"])
def test_extra_files_cannot_take_the_place_of_others(single: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected the name of a file"):
        Checkpoint.open(single).save_patched(tmp_path / "out", {}, {name: b"x"})


def test_an_existing_folder_is_kept_unless_told(single: Path, tmp_path: Path) -> None:
    ckpt, out = Checkpoint.open(single), tmp_path / "out"
    out.mkdir()
    ckpt.save_patched(out, {})
    (out / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="overwrite=True"):
        ckpt.save_patched(out, {})
    assert (out / "mine.txt").read_text() == "precious"
    ckpt.save_patched(out, {}, overwrite=True)
    assert contents(out) == contents(single)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_original_cannot_be_overwritten(copied: Path) -> None:
    ckpt = Checkpoint.open(copied)
    for place in (copied, copied / "inside", copied.parent):
        with pytest.raises(ConfigError, match="apart from the original"):
            ckpt.save_patched(place, {}, overwrite=True)


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_no_half_folder_and_loses_nothing(
    single: Path, tmp_path: Path, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt, out = Checkpoint.open(single), tmp_path / "out"
    if existing:
        ckpt.save_patched(out, {"model.norm.weight": torch.ones(64)})
    before = contents(tmp_path)

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        if Path(source).suffix == ".safetensors":
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(patch_module.shutil, "copyfile", full)
    with pytest.raises(ConfigError, match="No space left"):
        ckpt.save_patched(out, {}, overwrite=True)
    assert contents(tmp_path) == before and out.exists() == existing
    assert len(list(tmp_path.iterdir())) == existing


def test_what_is_no_checkpoint_is_refused_by_what_it_is(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="found the weights of a checkpoint: name its folder"):
        Checkpoint.open(copied / "model.safetensors")
    with pytest.raises(FormatError, match="found nothing at"):
        Checkpoint.open(tmp_path / "absent")
    with pytest.raises(FormatError, match=r"found nothing at absent\.gguf"):  # and no hub is asked
        Checkpoint.open("absent.gguf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"expected a config\.json"):
        Checkpoint.open(tmp_path / "empty")
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(FormatError, match="a pickle"):
        Checkpoint.open(copied)
    (copied / "pytorch_model.bin").unlink()
    with pytest.raises(FormatError, match="found no weights: download them"):
        Checkpoint.open(copied)
    (copied / "model.safetensors").touch()
    with pytest.raises(FormatError, match="found an empty one"):
        Checkpoint.open(copied)


@pytest.mark.parametrize("config", [False, True])
def test_files_among_which_to_choose_are_named(tmp_path: Path, config: bool) -> None:
    (tmp_path / "onnx").mkdir()
    for name in ("a.onnx", "onnx/b.onnx"):
        (tmp_path / name).touch()
    if config:
        (tmp_path / "config.json").write_text("{}")
    else:
        (tmp_path / "c.gguf").touch()
    with pytest.raises(FormatError, match=r"found a\.onnx, (c\.gguf, )?onnx/b\.onnx; name one of them"):
        Checkpoint.open(tmp_path)


@pytest.fixture
def hub(single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the hub's own client keeps it, with one model in it, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    kept = tmp_path / "hub" / "models--some-one--tiny"
    snapshot = kept / "snapshots" / ("0" * 40)
    for folder in (kept / "blobs", kept / "refs", snapshot):
        folder.mkdir(parents=True)
    for file in single.iterdir():
        shutil.copyfile(file, kept / "blobs" / file.name)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    for ref in ("main", "v1"):
        (kept / "refs" / ref).write_text("0" * 40)
    return snapshot


def test_a_hub_id_is_found_in_the_cache_by_branch_tag_or_commit(hub: Path, single: Path, tmp_path: Path) -> None:
    want = Checkpoint.open(single).digest()
    for said in ("some-one/tiny", "some-one/tiny@v1", f"some-one/tiny@{'0' * 40}"):
        found = Checkpoint.open(said)
        assert found.path == hub and found.digest() == want, said
    name = next(iter(found.info))
    found.save_patched(tmp_path / "out", {name: found.read(name)})
    assert Checkpoint.open(tmp_path / "out").digest() == want
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("said", ["no-one/no-such-model", "some-one/tiny@v2", "some-one/tiny@refs/pr/1"])
def test_a_hub_id_that_is_not_cached_is_refused(hub: Path, said: str) -> None:
    with pytest.raises(FormatError, match=f"'{said}', which is no folder here and not in the cache .*HF_HUB_OFFLINE"):
        Checkpoint.open(said)


def test_a_snapshot_without_safetensors_is_refused_and_no_pickle_read(hub: Path) -> None:
    for file in hub.glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(FormatError, match=r"some-one/tiny: expected safetensors, found none .* no pickles"):
        Checkpoint.open("some-one/tiny")


def test_only_data_is_asked_of_the_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import filter_repo_objects

    asked: dict[str, Any] = {}

    def download(hub_id: str, **given: Any) -> str:
        asked.update(given, hub_id=hub_id)
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    Checkpoint.open("some-one/tiny@refs/pr/1")
    assert (asked.pop("hub_id"), asked.pop("revision")) == ("some-one/tiny", "refs/pr/1")
    data = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model"]
    data += ["vocab.txt", "chat_template.jinja"]
    rest = ["pytorch_model.bin", "modeling_x.py", "README.md", "onnx/model.safetensors", "consolidated.safetensors"]
    assert list(filter_repo_objects(data + rest, **asked)) == data


def test_modules_and_further_chat_templates_are_asked_of_the_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import filter_repo_objects

    asked: list[dict[str, Any]] = []

    def download(hub_id: str, **given: Any) -> str:
        asked.append(given)
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    Checkpoint.open("some-one/tiny")
    assert len(asked) == 1  # nothing in it speaks of sub-folders
    pooling = ["1_Pooling/config.json", "2_Dense/model.safetensors"]
    templates = ["additional_chat_templates/tool_use.jinja"]
    rest = ["onnx/config.json", "onnx/model.safetensors", "2_Dense/pytorch_model.bin", "1_Pooling/code.py"]
    for name, wanted in (("modules.json", pooling), ("chat_template.jinja", templates)):
        (hub / name).write_text("[]")
        Checkpoint.open("some-one/tiny@v1")
        last = asked.pop()
        assert last.pop("revision") == hub.name  # the same commit
        assert list(filter_repo_objects(pooling + templates + rest, **last)) == wanted
        (hub / name).unlink()


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b'{"a":' * 5000, b"\xff\xfe"])
def test_a_broken_config_is_refused(copied: Path, config: bytes) -> None:
    (copied / "config.json").write_bytes(config)
    with pytest.raises(FormatError, match=r"config\.json: expected"):
        Checkpoint.open(copied)


def test_a_contradicting_index_is_refused(sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "x"))
    path = folder / "model.safetensors.index.json"
    good = json.loads(path.read_text())
    name, shard = next(iter(good["weight_map"].items()))
    other = next(file for file in good["weight_map"].values() if file != shard)
    for change, says in (
        ({name: other}, "the tensor"),
        ({name: "absent.safetensors"}, "the shard absent"),
        ({name: "../x/" + shard}, "names of files"),
        ({name: 3}, "weight_map"),
        ({"ghost": shard}, "the tensor ghost"),
    ):
        path.write_text(json.dumps({"weight_map": good["weight_map"] | change}))
        with pytest.raises(FormatError, match=says):
            Checkpoint.open(folder)
    path.write_text(json.dumps(good))
    (folder / shard).unlink()
    with pytest.raises(FormatError, match="expected the shard"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1, -1000])
def test_a_truncated_file_is_refused(copied: Path, keep: int) -> None:
    path = copied / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(FormatError, match="truncated"):
        Checkpoint.open(copied)


def test_a_header_cannot_ask_for_more_than_the_file_holds(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for entry in (
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 60]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [10**30] * 12, "data_offsets": [0, 16]},
        {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [4]},
        [],
    ):
        raw = json.dumps({"x": entry}).encode()
        (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + b"\0" * 16)
        with pytest.raises(FormatError, match=r"model\.safetensors"):
            Checkpoint.open(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(FormatError, match="expected a safetensors header"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("first", "second"), [((0, 8), (4, 12)), ((0, 8), (0, 8)), ((0, 4), (8, 16)), ((4, 8), (8, 16))]
)
def test_tensors_neither_overlap_nor_leave_holes(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    header = {
        name: {"dtype": "U8", "shape": [stop - start], "data_offsets": [start, stop]}
        for name, (start, stop) in (("a", first), ("b", second))
    }
    raw = json.dumps(header).encode()
    size = max(first[1], second[1])
    (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(size))
    with pytest.raises(FormatError, match="to start at byte"):
        Checkpoint.open(tmp_path)


def test_a_quantized_checkpoint_in_shards_keeps_every_other_byte(tmp_path: Path) -> None:
    source = tiny_checkpoints.folder(tmp_path / "float", "llama-tied", torch.float16, "60KB")
    quantize(source, tmp_path / "quantized", group_size=32)
    ckpt = Checkpoint.open(tmp_path / "quantized")
    moved = {name: ckpt.read(name).float() * 1.01 for name in ckpt.info if name.endswith(".scales")}
    ckpt.save_patched(tmp_path / "out", moved)
    old, new = contents(tmp_path / "quantized"), contents(tmp_path / "out")
    assert set(old) == set(new) and len(set_of_files(ckpt)) > 1
    inside = {info.file: set() for info in ckpt.info.values()}
    for name in moved:
        info = ckpt.info[name]
        inside[info.file] |= set(range(info.start, info.start + info.nbytes))
    for file in old:
        differ = {at for at, (a, b) in enumerate(zip(old[file], new[file], strict=True)) if a != b}
        assert differ <= inside.get(file, set())
