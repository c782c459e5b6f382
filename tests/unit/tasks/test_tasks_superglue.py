"""RTE, CB and BoolQ: prompts, splits of files of every size, and rows that cannot be used."""

import json

import pytest

from forq.errors import ConfigError, DataError
from forq.plugins import registry
from forq.tasks import boolq, cb, rte
from tests import tiny_lm

TOKENIZER = tiny_lm.tokenizer()
ROWS = {
    "rte": {"premise": "It rained.", "hypothesis": "It was wet.", "label": "not_entailment"},
    "cb": {"premise": "It rained.", "hypothesis": "it was wet", "label": "neutral"},
    "boolq": {"passage": "It rained.", "question": "was it wet", "label": True},
}
PROMPTS = {
    "rte": ('It rained.\nDoes this mean that "It was wet" is true? Yes or No?\n', 1),
    "cb": ('Suppose It rained. Can we infer that "it was wet"? Yes, No, or Maybe?\n', 2),
    "boolq": ("It rained. Was it wet?\n", 0),
}


def data(folder, name, rows):
    folder.mkdir(exist_ok=True)
    for file, count in rows.items():
        lines = (json.dumps(ROWS[name] | {"idx": f"{file}{n}"}) for n in range(count))
        (folder / file).write_text("\n".join(lines) + "\n")
    return folder


def opened(name, folder, **options):
    return registry.get("tasks", name).open(folder, TOKENIZER, seed=0, **options)


@pytest.mark.parametrize("name", ROWS)
def test_the_prompt_is_the_papers(name):
    found = registry.get("tasks", name).preset.read(ROWS[name])
    assert (found.prompt, found.label) == PROMPTS[name]
    assert found.prompt.endswith(registry.get("tasks", name).preset.classes.keep)


@pytest.mark.parametrize("name", ROWS)
def test_the_papers_split_where_there_are_rows_enough(name, tmp_path):
    rows = opened(name, data(tmp_path / "x", name, {"train.jsonl": 1600, "val.jsonl": 40})).describe()["rows"]
    assert rows == {"train": 1000, "validation": 500, "test": 40}


def test_a_small_file_keeps_one_row_in_five_for_validation(tmp_path):
    folder = data(tmp_path / "x", "cb", {"train_full.jsonl": 250, "val.jsonl": 56})
    assert opened("cb", folder).describe()["rows"] == {"train": 200, "validation": 50, "test": 56}
    assert opened("cb", folder, test_rows=7).describe()["rows"]["test"] == 7


def test_a_few_shot_sample_is_validated_by_the_file_beside_it(tmp_path):
    folder = data(tmp_path / "x", "boolq", {"train.jsonl": 32, "dev32.jsonl": 30, "val.jsonl": 9})
    assert opened("boolq", folder).describe()["rows"] == {"train": 32, "validation": 30, "test": 9}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2"),
        ("[1]", "expected an object with fields, found list"),
        ('{"premise": "a", "label": "neutral"}', "expected a field 'hypothesis'"),
        ('{"premise": "a", "hypothesis": "b", "label": "maybe"}', "expected a label among entailment"),
        ('{"premise": " ", "hypothesis": "b", "label": "neutral"}', "expected text in 'premise'"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(tmp_path, line, says):
    folder = data(tmp_path / "x", "cb", {"train.jsonl": 1, "val.jsonl": 1})
    with (folder / "train.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match="line 2") as refused:
        opened("cb", folder)
    assert says in str(refused.value)


def test_boolq_takes_truth_values_not_numbers(tmp_path):
    folder = data(tmp_path / "x", "boolq", {"train.jsonl": 1, "val.jsonl": 1})
    (folder / "val.jsonl").write_text(json.dumps(ROWS["boolq"] | {"label": 1}) + "\n")
    with pytest.raises(DataError, match="expected a label among True, False, found 1"):
        opened("boolq", folder)


def test_empty_and_missing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"train\.jsonl"):
        opened("rte", tmp_path)
    data(tmp_path, "rte", {"train.jsonl": 5, "val.jsonl": 0})
    with pytest.raises(DataError, match="no rows"):
        opened("rte", tmp_path)
    with pytest.raises(ConfigError, match="1 row or more"):
        opened("rte", tmp_path, train_rows=0)


def test_a_head_reads_the_texts_as_they_are_and_the_prompt_ends_its_own_sentence() -> None:
    pair = {"premise": "A man sleeps.", "hypothesis": "A man rests."}
    for module in (rte, cb):
        asked = module._ask(pair)
        assert asked.plain == ("A man sleeps.", "A man rests.") and '"A man rests"' in asked.prompt
    asked = boolq._ask({"passage": "Ice is cold.", "question": "is ice cold?"})
    assert asked.plain == ("is ice cold?", "Ice is cold.") and asked.prompt.endswith("Is ice cold?\n")
