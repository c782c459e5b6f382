"""What documents say of the house is what the machine checks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from forq.formats._page import page, table
from forq.models.families import FAMILIES
from forq.recipes import _page as settings

ROOT = Path(__file__).parents[3]


def test_the_floors_of_the_document_are_those_import_linter_holds() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    held = [{name.strip() for name in re.split(r"[|:]", layer)} for layer in reversed(settings["layers"])]
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    said = [{name.rstrip("/") for name in re.findall(r"`([^`]+)`", names)} for _, names in rows]
    assert [int(number) for number, _ in rows] == list(range(len(rows)))
    assert said == held


def test_the_page_of_models_names_the_families_there_are() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    named = set(re.findall(r"`([a-z0-9_-]+)`", text.split("**Decoders.**")[1].split("These are the names")[0]))
    assert named == set(FAMILIES)


def test_the_page_of_formats_is_what_they_say() -> None:
    assert (ROOT / "docs" / "formats.md").read_text() == page()


def test_the_readme_shows_the_same_table() -> None:
    assert table() in (ROOT / "README.md").read_text()


def test_the_page_of_settings_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings.page()
    for line in settings.page().splitlines():
        if line.startswith("| `"):
            assert len(line.split(" | ")[-1]) > 8, f"without a meaning: {line}"
