"""Single files and HQQ's folders by their hub ids, from a cache as the hub's own client keeps it, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.models.load import load
from tests.fixtures import gguf, hqq, onnx
from tests.fixtures.gguf_architectures import made, write

IDS = torch.randint(1, 64, (2, 7), generator=torch.Generator().manual_seed(3))
COMMIT = "0" * 40
Lay = Callable[[Path], Path]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lay:
    """Puts a folder's files into the cache as ``some-one/files``, as links to blobs; gives its snapshot."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "hub" / "models--some-one--files"
    snapshot = kept / "snapshots" / COMMIT

    def laid(folder: Path) -> Path:
        for here in (kept / "blobs", kept / "refs" / "refs" / "pr", snapshot):
            here.mkdir(parents=True)
        for ref in ("main", "v1", "refs/pr/2"):
            (kept / "refs" / ref).write_text(COMMIT)
        for number, file in enumerate(sorted(file for file in folder.rglob("*") if file.is_file())):
            shutil.copyfile(file, kept / "blobs" / str(number))
            link = snapshot / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(kept / "blobs" / str(number))
        return snapshot

    return laid


def graph(folder: Path, place: str = "onnx/") -> Path:
    """A repository with a graph, its external data, and configuration and tokenizer where exports have them."""
    made = onnx.example(folder / "made", external=True)
    (folder / "repo" / place).mkdir(parents=True)
    for file in made.iterdir():
        beside = place if file.name.startswith("model.onnx") else ""
        file.rename(folder / "repo" / beside / file.name)
    assert (folder / "repo" / "config.json").is_file()
    return folder / "repo"


@pytest.mark.parametrize("place", ["", "Q4/deep/"])
@pytest.mark.parametrize("revision", ["", "@v1", "@refs/pr/2", f"@{COMMIT}"])
def test_a_gguf_file_is_found_by_name_and_saved_as_a_file(place: str, revision: str, lay: Lay, tmp_path: Path) -> None:
    file = gguf.example(tmp_path / "made").rename(tmp_path / "made" / "x-Q4_0.gguf")
    (tmp_path / "repo" / place).mkdir(parents=True)
    shutil.copyfile(file, tmp_path / "repo" / place / file.name)
    snapshot = lay(tmp_path / "repo")
    found = Checkpoint.open(f"some-one/files{revision}/{place}{file.name}")
    assert found.path == snapshot / place / file.name and found.digest() == Checkpoint.open(file).digest()
    assert torch.equal(load(found, "cpu")(IDS).logits, load(file, "cpu")(IDS).logits)
    found.save_patched(tmp_path / "out", {})
    assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("place", ["", "onnx/"])
def test_a_graph_comes_with_its_data_and_what_lies_above_it(place: str, lay: Lay, tmp_path: Path) -> None:
    repo = graph(tmp_path, place)
    snapshot = lay(repo)
    found = Checkpoint.open(f"some-one/files/{place}model.onnx")
    want = Checkpoint.open(repo / place / "model.onnx")
    assert found.folder == snapshot and found.digest() == want.digest() and found.config == want.config
    assert found.contents.files == want.contents.files
    assert torch.equal(load(found, "cpu")(IDS).logits, load(want, "cpu")(IDS).logits)


def test_of_a_graph_no_more_is_asked_than_it_reads(lay: Lay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = lay(graph(tmp_path))
    asked: list[Any] = []

    def one(name: str, file: str, *, revision: str | None) -> str:
        asked.append((file, revision))
        return str(snapshot / file)

    def several(name: str, *, revision: str, **patterns: Any) -> str:
        asked.append(([*filter_repo_objects(there, **patterns)], revision))
        return str(snapshot)

    there = ["config.json", "tokenizer.json", "README.md", "model.safetensors", "pytorch_model.bin", "deep/x.json"]
    there += ["onnx/config.json", "onnx/model_fp16.onnx", "onnx/model_fp16.onnx_data", "onnx/deep/x.json", "code.py"]
    monkeypatch.setattr("huggingface_hub.hf_hub_download", one)
    monkeypatch.setattr("huggingface_hub.snapshot_download", several)
    Checkpoint.open("some-one/files@v1/onnx/model.onnx")
    data = next(file.name for file in (snapshot / "onnx").iterdir() if file.name != "model.onnx")
    assert asked == [
        ("onnx/model.onnx", "v1"),
        (f"onnx/{data}", COMMIT),  # the branch may move between two questions
        (["onnx/config.json"], COMMIT),
        (["config.json", "tokenizer.json"], COMMIT),
    ]


def test_data_of_a_graph_that_is_missing_is_named(lay: Lay, tmp_path: Path) -> None:
    snapshot = lay(graph(tmp_path))
    (data,) = [file for file in (snapshot / "onnx").iterdir() if file.name != "model.onnx"]
    data.unlink()
    with pytest.raises(FormatError, match=f"'some-one/files/onnx/{data.name}', which is no file here and not in the c"):
        Checkpoint.open("some-one/files/onnx/model.onnx")


def test_a_folder_of_hqq_is_fetched_with_its_one_file(
    lay: Lay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hqq.example(tmp_path / "made")
    snapshot = lay(folder)
    assert Checkpoint.open("some-one/files").digest() == Checkpoint.open(folder).digest()
    kept: dict[str, Any] = {}

    def several(name: str, **given: Any) -> str:
        kept.update(given)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", several)
    Checkpoint.open("some-one/files")
    del kept["revision"]
    assert list(filter_repo_objects(["config.json", "qmodel.pt", "other.pt"], **kept)) == ["config.json"]
    (snapshot / "config.json").unlink()
    with pytest.raises(FormatError, match="downloads no pickles"):
        Checkpoint.open("some-one/files")


@pytest.mark.parametrize("config", [False, True])
@pytest.mark.parametrize("count", [1, 8, 11])
def test_a_repository_of_files_alone_lists_them(count: int, config: bool, lay: Lay, tmp_path: Path) -> None:
    (tmp_path / "repo" / "onnx").mkdir(parents=True)
    names = [f"onnx/{place:02}.onnx" for place in range(count - 1)] + ["x.Q4_0.GGUF"]
    for name in names + ["onnx/00.onnx_data", "pytorch_model.bin"] + ["config.json"] * config:
        (tmp_path / "repo" / name).write_text("{}")
    lay(tmp_path / "repo")
    more = " and 3 more" if count == 11 else ""
    with pytest.raises(FormatError) as caught:
        Checkpoint.open("some-one/files@v1")
    named = ", ".join(names[:8])
    assert str(caught.value) == (
        f"some-one/files@v1: expected safetensors, found {named}{more}; name one of them: some-one/files@v1/{names[0]}"
    )


def test_what_lies_here_goes_before_the_hub(lay: Lay, tmp_path: Path) -> None:
    lay(gguf.example(tmp_path / "made").parent)
    folder = tmp_path / "some-one" / "files"
    folder.mkdir(parents=True)
    with pytest.raises(FormatError, match=r"found nothing at some-one/files/tiny\.gguf"):
        Checkpoint.open("some-one/files/tiny.gguf")
    shutil.copyfile(tmp_path / "made" / "tiny.gguf", folder / "tiny.gguf")
    assert Checkpoint.open("some-one/files/tiny.gguf").path == Path("some-one/files/tiny.gguf")
    for said in ("some-one/tiny.gguf", "./some-one/other/tiny.gguf", "some-one/other/../tiny.gguf", "~/a/b/tiny.gguf"):
        with pytest.raises(FormatError, match="found nothing at"):
            Checkpoint.open(said)


@pytest.mark.parametrize("said", ["some-one/files/absent.gguf", "some-one/files@v2/tiny.gguf", "no-one/no/x.onnx"])
def test_a_file_that_is_not_cached_is_refused(said: str, lay: Lay, tmp_path: Path) -> None:
    lay(gguf.example(tmp_path / "made").parent)
    with pytest.raises(FormatError, match=f"'{said}', which is no file here and not in the cache .*HF_HUB_OFFLINE"):
        Checkpoint.open(said)


def test_a_later_part_of_a_file_is_refused_before_it_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *words, **given: pytest.fail("it was fetched"))
    with pytest.raises(FormatError, match=r"number 2; name some-one/files@v1/q/x-00001-of-00003\.gguf"):
        Checkpoint.open("some-one/files@v1/q/x-00002-of-00003.gguf")


def test_the_further_parts_of_a_file_come_with_the_first(lay: Lay, tmp_path: Path) -> None:
    first = write(tmp_path / "made" / "q" / "x.gguf", "llama", made("llama"), split=9)
    want = Checkpoint.open(first)
    lay(tmp_path / "made")
    ckpt = Checkpoint.open(f"some-one/files/q/{first.name}")
    assert len(ckpt.contents.files or ()) == 3 and ckpt.digest() == want.digest()
    (tmp_path / "hub" / "models--some-one--files" / "snapshots" / COMMIT / "q" / "x-00003-of-00003.gguf").unlink()
    with pytest.raises(FormatError, match=r"files/q/x-00003-of-00003.gguf', which is no file here"):
        Checkpoint.open(f"some-one/files/q/{first.name}")
