"""Calls of tools have arguments of their own: what Arrow fills in for the others is not shown to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forq.errors import DataError
from forq.runs.data import as_path
from forq.tasks import completion
from forq.tasks.rows.unfilled import unfilled
from tests.chat_templates import CHATML, tokenizer

CALLS = CHATML.replace("m.content +", "(m.content or '') + (m.tool_calls | tojson if m.tool_calls else '') +")


def conversation(number: int) -> dict[str, Any]:
    arguments = {"city": "Paris"} if number % 2 else {"term": "1+1"}
    call = {"role": "assistant", "content": "", "tool_calls": [{"arguments": arguments}]}
    return {"messages": [{"role": "user", "content": f"film {number}"}, call]}


ROWS = [conversation(number) for number in range(12)]
FEATURES = {
    "messages": [
        {"role": str, "content": str, "tool_calls": [{"arguments": {"city": str, "term": str}}]},
    ]
}


class Filled(list[Any]):
    """Rows as ``datasets.Dataset`` gives them, with every key of a struct in all of them."""

    features = FEATURES

    def __init__(self) -> None:
        rows = json.loads(json.dumps(ROWS))
        for row in rows:
            arguments = row["messages"][1]["tool_calls"][0]["arguments"]
            row["messages"][1]["tool_calls"][0]["arguments"] = {"city": None, "term": None, **arguments}
            row["messages"][0]["tool_calls"] = None
        super().__init__(rows)


def test_structs_lose_the_nulls_that_arrow_filled_in() -> None:
    assert [unfilled(row, FEATURES) for row in Filled()] == ROWS
    row = {"id": None, "json": {"a": None}, "texts": ["a", None]}
    assert unfilled(row, {"id": str, "json": object(), "texts": [str]}) == row


def test_rows_in_memory_are_written_as_their_owner_wrote_them(tmp_path: Path) -> None:
    as_path(Filled(), tmp_path)
    file = tmp_path / "rows" / "train.jsonl"
    assert [json.loads(line) for line in file.read_text().splitlines()] == ROWS
    as_path(Filled(), tmp_path, begun=True)
    # A run that was begun with the nulls goes on with them.
    file.write_text("".join(json.dumps(row) + "\n" for row in Filled()))
    before = file.read_bytes()
    as_path(Filled(), tmp_path, begun=True)
    assert file.read_bytes() == before
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:-1]))
    with pytest.raises(DataError, match="rows the run was begun with"):
        as_path(Filled(), tmp_path, begun=True)


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_a_data_set_of_calls_is_learned_as_json_lines_are(tmp_path: Path, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.Dataset.from_list(Filled())
    assert "term" in found[1]["messages"][1]["tool_calls"][0]["arguments"]
    if kind == "parquet":
        (tmp_path / "set").mkdir()
        found.to_parquet(tmp_path / "set" / "train.parquet")
    else:
        found.save_to_disk(tmp_path / "set")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    paths = (f"hf:{tmp_path / 'set'}" if kind == "parquet" else tmp_path / "set", tmp_path / "rows.jsonl")
    texts = []
    for path in paths:
        task = completion.open(path, tokenizer(CALLS), seed=0)  # type: ignore[arg-type]
        texts.append(sorted(task.tokenizer.decode(row.tokens) for rows in task.rows.values() for row in rows))
    assert texts[0] == texts[1] and "null" not in "".join(texts[0])
