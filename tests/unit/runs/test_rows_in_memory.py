"""Rows in memory as the files that a run reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from forq.errors import DataError
from forq.runs.data import as_path


class Rows(list[Any]):
    """Rows as a ``datasets.Dataset`` with a ClassLabel gives them."""

    features: ClassVar[Any] = {"label": SimpleNamespace(names=["pos", "neg"]), "text": "string"}


def written(folder: Path, label: object, **options: Any) -> object:
    path = Path(as_path(Rows([{"text": "a", "label": label}]), folder, **options))
    return json.loads((path / "train.jsonl").read_text())["label"]


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint8])
def test_a_number_of_any_kind_is_written_as_the_name_of_its_class(tmp_path: Path, kind: Any) -> None:
    """``with_format("numpy")`` gives NumPy's numbers."""
    assert written(tmp_path, kind(1)) == "neg"
    with pytest.raises(DataError, match="expected a label 0 … 1, found 2"):
        written(tmp_path, kind(2))


def test_a_run_that_wrote_the_number_goes_on_with_it(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"text": "a", "label": 1}\n')
    assert written(tmp_path, np.int64(1), begun=True) == 1
