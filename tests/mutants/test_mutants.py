"""A short list of classic mistakes; each, made on purpose in a copy of the source, must fail at least one test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mutants

ROOT = Path(__file__).parents[2]

MUTANTS = {
    "a row's own slope counts as a batch's": (
        "scalars/rules/newton.py",
        "share = confirmed / (confirmed + rows * (1.0 - confirmed))",
        "share = confirmed",
        "unit/scalars/test_by_row.py",
    ),
    "all rows see the first one's direction": (
        "coordinates/directions.py",
        "[row - rows[0] for row in rows]",
        "[0 for row in rows]",
        "contract/test_by_row.py",
    ),
    "a block's minimum has noise of its own": (
        "coordinates/masters/base.py",
        "key=leaf_id(shared.key), rows=rows",
        "rows=rows",
        "contract/test_by_row.py",
    ),
    "blocks of a row have numbers of their own": (
        "coordinates/masters/base.py",
        "rows = (stride * shared.run, count // shared.run)",
        "rows = (stride, count)",
        "contract/test_by_row.py",
    ),
    "forget the 2 in 2ε": (
        "scalars/estimators/two_point.py",
        "/ (2.0 * self.radius(step, k))",
        "/ self.radius(step, k)",
        "contract/test_estimators.py",
    ),
    "return by adding back": (
        "coordinates/space.py",
        "            self._return(touched)\n",
        "            for master in touched:\n"
        "                away = master.tensor.clone()\n"
        "                master.fill(move.scaled(-1.0), away)\n"
        "                master.leaf.write(master.leaf.read() + (away - master.tensor))\n"
        "            self._displaced = False\n",
        "unit/coordinates/test_spaces.py",
    ),
    "clip one side": (
        "scalars/rules/clip.py",
        "min(max(d, -bound), bound)",
        "min(d, bound)",
        "contract/test_rules.py",
    ),
    "one step too many": (
        "runs/engine.py",
        "range(first, first + steps)",
        "range(first, first + steps + 1)",
        "unit/runs/test_engine.py",
    ),
    "tape ignores the step": (
        "runs/oracles/tape.py",
        "self.lines[step].losses",
        "self.lines[0].losses",
        "unit/runs/test_engine.py",
    ),
    "sign uphill": (
        "scalars/rules/sgd.py",
        "weight=-rates[owner(",
        "weight=rates[owner(",
        "unit/runs/test_engine.py",
    ),
    "same noise for every leaf": (
        "noise/bits.py",
        "hashlib.blake2b(name.encode()",
        "hashlib.blake2b(b''",
        "unit/noise/test_noise.py",
    ),
    "probe and step from other seeds": (
        "scalars/directions.py",
        "terms = tuple(self._term(step, k, d",
        "terms = tuple(self._term(step, k + 1, d",
        "contract/test_estimators.py",
    ),
    "journal seals nothing": (
        "runs/journal.py",
        'or _seal(previous, text[:cut] + "}") != body["#"]',
        "",
        "unit/runs/test_journal.py",
    ),
    "snapshot applied twice": ("runs/engine.py", "apply=number >= held", "apply=True", "unit/runs/test_engine.py"),
    "one mean over all groups": (
        "scalars/directions.py",
        "d / share[groups[k]]",
        "d / len(slopes)",
        "contract/test_estimators.py",
    ),
    "the curvature stays in the slope": (
        "scalars/quadratic.py",
        "around[k].mean - here.mean - 0.5 * fisher[place][place]",
        "around[k].mean - here.mean",
        "unit/scalars/test_newton.py",
    ),
    "a batch confirms its own step": (
        "scalars/rules/newton.py",
        'known = state if state["steps"] else after',
        "known = after",
        "unit/scalars/test_newton.py",
    ),
    "held-out rows are left in": (
        "runs/oracles/curvature.py",
        "rest = np.delete(np.arange(count), out)",
        "rest = np.arange(count)",
        "unit/runs/test_curvature.py",
    ),
    "every leaf of every group moves": (
        "coordinates/directions.py",
        "return [term for term in terms if term.group in groups]",
        "return list(terms)",
        "unit/coordinates/test_spaces.py",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_dies(name, tmp_path):
    file, good, bad, tests = MUTANTS[name]
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__", "mutants"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "src" / "forq" / file
    text = path.read_text()
    assert text.count(good) == 1, f"{file} no longer holds the line this mutant changes"
    path.write_text(text.replace(good, bad))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{tests}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, f"the mutant survived {tests}:\n{done.stdout[-2000:]}{done.stderr[-500:]}"
