"""Every command the README and the pages of docs/ show exists with the options it is shown with; Python runs."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import forq
from forq.cli import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT): path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.S)
LINES = sorted(
    {
        line
        for page in PAGES.values()
        for kind, block in re.findall(r"```(\w*)\n(.*?)```", page, re.S)
        if kind in ("", "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("forq ")
    }
)


def test_there_is_something_to_check():
    assert len(LINES) >= 5


@pytest.mark.parametrize("line", LINES)
def test_a_command_has_the_options_it_is_shown_with(line):
    _, name, *words = shlex.split(line, comments=True)
    known = {option for parameter in get_command(app).commands[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", TEXT, re.M))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for file, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", PAGES[page]):
        target = ROOT / page.parent / file if file else ROOT / page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{file}#{anchor}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: small letters, no punctuation, a hyphen for a space."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_python_runs(base, text, tmp_path, monkeypatch):
    (code,) = [block for kind, block in BLOCKS if kind == "python"]
    monkeypatch.chdir(tmp_path)
    for shown, here in (
        ('"smollm2"', repr(str(base))),
        ('"notes.txt"', repr(str(text))),
        ("steps=20", 'steps=3, settings={"task": {"max_length": 32, "validation_rows": 8}}'),
    ):
        assert shown in code, "the README no longer shows this"
        code = code.replace(shown, here)

    def loss_of(model, batch):
        return model(input_ids=batch, labels=batch).loss.item()

    import torch

    exec(code, {"batches": [torch.arange(1, 20)[None]], "loss_of": loss_of})
    assert (tmp_path / "notes" / "checkpoint" / "model.safetensors").exists()


def test_the_page_on_python_watches_a_run(base, text, tmp_path, monkeypatch, capsys):
    _, code = re.findall(r"```python\n(.*?)```", PAGES[Path("docs/python.md")], re.S)
    monkeypatch.chdir(tmp_path)
    for shown, here in (
        ('"smollm2"', repr(str(base))),
        ('"notes.txt"', repr(str(text))),
        ('{"max_length": 64}', '{"max_length": 32, "validation_rows": 8}'),
        ("steps=20", "steps=2"),
        ("eval_every=5", "eval_every=1"),
    ):
        assert shown in code, "the page no longer shows this"
        code = code.replace(shown, here)
    found = {}
    exec(code, found)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[0] for words in printed if len(words) == 2] == ["0", "1", "2"]
    assert sum(words[1:2] == ["train"] for words in printed) == 2
    assert (tmp_path / "watched" / "checkpoint" / "model.safetensors").exists()
    assert not (tmp_path / "watched" / "result.json").exists()


def test_the_page_on_python_tunes_a_task_of_ones_own(base, tmp_path, monkeypatch, capsys):
    code, _ = re.findall(r"```python\n(.*?)```", PAGES[Path("docs/python.md")], re.S)
    monkeypatch.chdir(tmp_path)
    code = code.replace('"smollm2"', repr(str(base))).replace("steps=20", "steps=1")
    found = {}
    exec(code, found)
    assert found["run"].result["test"]["after"]["rows"] == 20 and "Score(loss=" in capsys.readouterr().out


def test_the_profile_page_runs(base, text, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[Path("docs/recipes.md")], re.S)
    monkeypatch.chdir(tmp_path)
    found = {"checkpoint": base, "data": text}
    exec(code, found)
    moved = found["run"].space.masters()
    start = {leaf.name: leaf.read() for leaf in forq.space(forq.load(base)).leaves}
    kept = {name for name, tensor in moved.items() if tensor.equal(start[name])}
    assert kept == {name for name in start if "mlp" in name}
