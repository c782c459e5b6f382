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
from forq.tasks import classify
from forq.tasks.rows import class_file
from tests import tiny_heads


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


def test_a_head_without_names_has_the_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """The order in which a trainer of transformers gave them to it; the alphabet has another."""
    rows = Rows({"text": f"film is {('bad', 'good')[n % 2]}", "label": n % 2} for n in range(40))
    tokenizer, head = tiny_heads.tokenizer("llama"), ("LABEL_0", "LABEL_1")

    def opened() -> Any:
        return classify.open(Path(path), tokenizer, seed=0, kind="classifier", head=head)

    path = as_path(rows, tmp_path)
    task = opened()
    assert task.describe()["names"] == ["pos", "neg"] and "guessed" not in task.describe()
    assert {"good" in tokenizer.decode(row.tokens): row.label for row in task.rows["train"]} == {True: 1, False: 0}
    (Path(path) / class_file.FILE).unlink()  # as a run from before has it
    assert as_path(rows, tmp_path, begun=True) == path and opened().describe()["guessed"] == ["neg", "pos"]
    as_path([{"text": "a", "label": "pos"}], tmp_path)
    assert not (Path(path) / class_file.FILE).exists()


def test_a_damaged_file_of_classes_is_refused(tmp_path: Path) -> None:
    for content in ("[]", "{", '{"train": 3}', '{"train": {"label": 3}}'):
        (tmp_path / class_file.FILE).write_text(content)
        with pytest.raises(DataError, match=r"\.classes\.json: expected the classes of the rows beside it"):
            class_file.read(tmp_path)
