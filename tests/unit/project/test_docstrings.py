"""Docstrings name what there is: a reference resolves, a documented attribute or argument exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import forq

SOURCE = Path(forq.__file__).parent
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
OPTIONAL = ("noise/triton", "layers/kernels/triton")
"""Modules that import what not every machine has."""

REFERENCE = re.compile(r":(?:mod|func|class|attr|meth|data):`~?(forq\.[\w.]+)`")


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((SOURCE / file).read_text(encoding="utf-8"))


def resolved(reference: str) -> bool:
    """Whether a dotted name is a module, something in it, or a member of a class in it."""
    parts = reference.split(".")
    for count in range(len(parts), 0, -1):
        place = SOURCE.joinpath(*parts[1:count])
        if not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
            continue
        if "/".join(parts[1:count]) in OPTIONAL:
            return True
        here = importlib.import_module(".".join(parts[:count]))
        for name in parts[count:]:
            if not hasattr(here, name):
                return any(name in inspect.get_annotations(base) for base in getattr(here, "__mro__", ()))
            here = getattr(here, name)
        return True
    return False


def listed(doc: str, section: str) -> Iterator[str]:
    """The names that a section of a docstring explains; those of one entry may share a line."""
    if (body := re.search(rf"^{section}:\n((?: +.*\n|\n)*)", doc + "\n", re.MULTILINE)) is not None:
        for names in re.findall(r"^ {4}(?! )([\w*, ]+):", body[1], re.MULTILINE):
            yield from (name.strip().lstrip("*") for name in names.split(","))


def arguments(function: ast.FunctionDef) -> set[str]:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return {argument.arg for argument in named}


def test_references_resolve() -> None:
    named = {(file, name) for file in FILES for name in REFERENCE.findall((SOURCE / file).read_text(encoding="utf-8"))}
    assert len(named) > 100
    assert [(file, name) for file, name in sorted(named) if not resolved(name)] == []


def test_documented_arguments_exist() -> None:
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef):
                unknown = set(listed(ast.get_docstring(node) or "", "Args")) - arguments(node)
                assert not unknown, f"{file}:{node.lineno}: {node.name} takes no {unknown}"


def set_here(part: ast.Attribute) -> bool:
    """Whether this is ``self.name = …``."""
    return isinstance(part.ctx, ast.Store) and isinstance(part.value, ast.Name) and part.value.id == "self"


def members(file: str, name: str) -> set[str]:
    """Names that a class of a file sets, with those of its bases in any file."""
    found: set[str] = set()
    for other in FILES if file == "" else [file]:
        for node in tree(other).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                inside = list(ast.walk(node))
                found |= {part.name for part in inside if isinstance(part, ast.FunctionDef)}
                found |= {part.id for part in inside if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
                found |= {part.attr for part in inside if isinstance(part, ast.Attribute) and set_here(part)}
                for base in node.bases:
                    found |= members("", ast.unparse(base).partition("[")[0].rpartition(".")[2])
    return found


def test_documented_attributes_exist() -> None:
    for file in FILES:
        for node in tree(file).body:
            if isinstance(node, ast.ClassDef) and (named := set(listed(ast.get_docstring(node) or "", "Attributes"))):
                unknown = named - members(file, node.name)
                assert not unknown, f"{file}:{node.lineno}: {node.name} has no {unknown}"
