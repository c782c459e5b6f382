"""`forq eval RUN` and `forq predict RUN`: the classes are the run's own, whatever labels the new rows have."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import forq as library
from tests import edge_net, tiny_encoders, tiny_heads, tiny_lm
from tests.cli.conftest import Done

NAMES = ("great", "bad", "good")  # the order of a file of labels; by the alphabet it is another
HEAD = ("good", "great", "bad")


def table(path: Path, labels: tuple[str, ...], count: int = 60) -> Path:
    lines = [f"film number {n} is it,{labels[n % len(labels)]}" for n in range(count)]
    path.write_text("\n".join(["text,label", *lines, ""]))
    return path


def checkpoint(folder: Path, kind: str) -> Path:
    if kind == "decoder":
        tiny_lm.model("llama").save_pretrained(folder / "float")
        tiny_lm.tokenizer().save_pretrained(folder / "float")
    elif kind == "encoder":
        tiny_encoders.folder(folder / "float")
    else:
        tiny_heads.folder(folder / "float", "bert", HEAD if kind == "head" else ("LABEL_0", "LABEL_1", "LABEL_2"))
    library.quantize(folder / "float", folder / "q", group_size=16)
    return folder / "q"


@pytest.mark.parametrize("kind", ["decoder", "encoder", "head", "head without names"])
def test_scores_and_labels_are_of_the_runs_classes(kind, tmp_path, forq):
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["label", *NAMES, ""]))
    data, out = table(tmp_path / "rows.csv", NAMES), tmp_path / "run"
    words = ("--task", "classify", "--data", data, "--set", f"task.labels={file}", "--set", "task.batch_rows=6")
    words += ("--set", "task.prior=false") if kind == "decoder" else ()
    done = forq("tune", checkpoint(tmp_path, kind), *words, "--steps", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    whole = json.loads(forq("eval", out, *words, "--json").stdout)
    file.unlink()
    # The run's own rows without the file of labels, whose order is not that of the alphabet.
    again = forq("eval", out, "--task", "classify", "--data", data, "--json")
    assert json.loads(again.stdout)["loss"] == whole["loss"], again.stderr

    new = tmp_path / "new"
    new.mkdir()
    few = ("great", "good")
    table(new / "train.csv", few, 30)
    test = table(new / "test.csv", few, 12)
    told = forq("predict", out, "--data", test)
    assert told.returncode == 0, told.stderr
    rows = list(csv.DictReader(io.StringIO(told.stdout)))
    assert {name for name in rows[0] if name.startswith("score")} == {f"score {name}" for name in NAMES}
    scored = forq("eval", out, "--task", "classify", "--data", new, "--json")
    assert scored.returncode == 0, scored.stderr
    found, right = json.loads(scored.stdout), [few[n % 2] for n in range(12)]
    assert found["accuracy"] == sum(row["label"] == name for row, name in zip(rows, right, strict=True)) / 12
    loss = sum(-math.log(float(row[f"score {name}"])) for row, name in zip(rows, right, strict=True)) / 12
    assert found["loss"] == pytest.approx(loss, abs=1e-3)

    table(new / "test.csv", ("great", "terrible"), 12)
    refused = forq("eval", out, "--task", "classify", "--data", new)
    assert refused.returncode == 1
    assert "test.csv, line 3: expected a label among 'great', 'bad', 'good', found 'terrible'" in refused.stderr


def test_images_are_scored_by_the_runs_classes(tmp_path, forq):
    network, out = edge_net.quantized(tmp_path, "qdq"), tmp_path / "run"
    pixels, places = (edge_net.images(80).transpose(0, 2, 3, 1) * 255).astype(np.uint8), np.arange(80) % 4
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.array(["bee", "cat", "emu", "ox"])[places])
    task = ("--task", "classify-images")
    done = forq("tune", network, *task, "--data", tmp_path / "a.npz", "--set", "task.batch_rows=8", "--steps", 1,
                "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    few = np.isin(places, (1, 3))
    model = library.load(out / "checkpoint" / network.name, device="cpu")
    best = model(torch.from_numpy(edge_net.images(80)[few])).argmax(dim=1).numpy()

    def scored(*labels: str) -> Done:
        names = np.array(labels)[places[few] // 2]
        arrays = {f"{split}_{name}": value for split in ("train", "test")
                  for name, value in (("images", pixels[few]), ("labels", names))}  # fmt: skip
        np.savez(tmp_path / "b.npz", **arrays)
        return forq("eval", out, *task, "--data", tmp_path / "b.npz", "--json")

    for labels in (("cat", "ox"), ("CAT", "Ox")):
        assert json.loads(scored(*labels).stdout)["accuracy"] == (best == places[few]).mean()
    refused = scored("cat", "wolf")
    assert refused.returncode == 1
    assert "expected a class of the run, bee, cat, emu, ox, found 'wolf'" in refused.stderr


def test_a_run_says_its_task_and_its_data(base, text, tmp_path, forq, monkeypatch):
    own, out = tmp_path / "own.txt", tmp_path / "run"
    own.write_bytes(text.read_bytes())
    how = ("--task", "text", "--data", own, "--set", "task.max_length=32", "--set", "task.test_rows=4")
    done = forq("tune", base, *how, "--steps", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    alone = forq("eval", out, "--json")
    assert alone.returncode == 0, alone.stderr
    assert json.loads(alone.stdout) == json.loads(forq("eval", out, *how[:4], "--json").stdout)
    assert json.loads(alone.stdout)["task"] == "text"

    # On another machine the run's path is not there: then the data of the task's name is, inside $FORQ_DATA.
    (tmp_path / "text").mkdir()
    own.rename(tmp_path / "text" / "own.txt")
    monkeypatch.setenv("FORQ_DATA", str(tmp_path))
    assert json.loads(forq("eval", out, "--json").stdout)["loss"] == json.loads(alone.stdout)["loss"]

    refused = forq("eval", base, "--data", tmp_path / "text")
    assert refused.returncode == 2 and "which task?" in refused.stderr
