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

HELD_OUT = ("--set", "task.test_rows=4", "--set", "task.max_length=64", "--set", "task.batch_rows=6")
ROWS = {
    "classify": ("rows.csv", "text,label\n", lambda n: f"film {n} is it,{('good', 'bad')[n % 2]}\n"),
    "completion": ("rows.jsonl", "", lambda n: json.dumps({"prompt": f"film {n} is", "completion": " good"}) + "\n"),
    "squad": (
        "rows.jsonl",
        "",
        lambda n: json.dumps({"context": f"film {n} is it", "question": "how is it ?", "answers": ["good"]}) + "\n",
    ),
    "text": ("rows.txt", "", lambda n: f"film number {n} is it and it is good and bad and so on .\n"),
}

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

    own = forq("eval", out)
    assert "rows: test 8 of 80" in own.stderr and "was changed" not in own.stderr
    np.savez(
        tmp_path / "new.npz", images=pixels[few][:30], labels=np.array(["bee", "cat", "emu", "ox"])[places[few]][:30]
    )
    for saved in (out, out / "checkpoint" / network.name):
        body = json.loads(forq("eval", saved, *task, "--data", tmp_path / "new.npz", "--json").stdout)
        assert body["rows"] == 30 == body["data"]["splits"]["test"]["read"]
        assert body["accuracy"] == pytest.approx((best == places[few])[:30].mean())

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
    assert alone.returncode == 0 and "warning" not in alone.stderr, alone.stderr
    assert json.loads(alone.stdout) == json.loads(forq("eval", out, *how[:4], "--json").stdout)
    assert json.loads(alone.stdout)["task"] == "text"

    # On another machine the run's path is not there: then the data of the task's name is, inside $FORQ_DATA.
    (tmp_path / "text").mkdir()
    own.rename(tmp_path / "text" / "own.txt")
    monkeypatch.setenv("FORQ_DATA", str(tmp_path))
    assert json.loads(forq("eval", out, "--json").stdout)["loss"] == json.loads(alone.stdout)["loss"]

    own.write_text(text.read_text() + "one more line .\n" * 100)
    assert "own.txt was changed after the run: rows that are scored may have been trained" in forq("eval", out).stderr

    refused = forq("eval", base, "--data", tmp_path / "text")
    assert refused.returncode == 2 and "which task?" in refused.stderr


def rows(folder: Path, task: str, numbers: range) -> Path:
    name, head, line = ROWS[task]
    folder.mkdir()
    (folder / name).write_text(head + "".join(map(line, numbers)))
    return folder / name


@pytest.mark.parametrize("task", ROWS)
def test_all_rows_of_new_data_are_scored_and_of_the_runs_own_those_it_held_out(task, base, tmp_path, forq):
    own, out = rows(tmp_path / "own", task, range(60)), tmp_path / "run"
    done = forq("tune", base, "--task", task, "--data", own, *HELD_OUT, "--steps", 1, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)["test"]["after"]

    def scored(*words: object) -> dict[str, object]:
        told = forq("eval", out, *words, "--json")
        assert told.returncode == 0 and "was changed" not in told.stderr, told.stderr
        body = json.loads(told.stdout)
        counts = body["data"]["splits"]["test"]
        assert counts["used"] == body["rows"]
        return {"loss": body["loss"], "rows": body["rows"], "read": counts["read"]}

    held_out = scored()
    assert held_out["loss"] == after["loss"] and held_out["rows"] == after["rows"] <= 4 < held_out["read"]
    moved = tmp_path / f"moved{own.suffix}"
    moved.write_bytes(own.read_bytes())
    assert scored("--data", moved) == held_out, "the same rows at another place are the run's"
    whole = scored("--split", "all")
    assert whole["rows"] == whole["read"] and abs(whole["read"] - held_out["read"]) <= 2

    new = rows(tmp_path / "new", task, range(100, 140))
    score = scored("--data", new)
    assert score["rows"] == score["read"] and (task == "text" or score["rows"] == 40)
    few = scored("--data", new, "--set", "task.test_rows=7")
    assert few["rows"] == 7 and few["read"] == score["read"]
    part = scored("--data", new, "--split", "test")
    assert part["rows"] < 10 and abs(part["read"] - score["read"]) <= 2
    shown = forq("eval", out, "--data", new, "--split", "test").stdout
    assert f", {part['rows']} of {part['read']} rows" in shown

    # A checkpoint that no run saved scores what a run would hold out, and says so.
    plain = forq("eval", base, "--task", task, "--data", new, *HELD_OUT)
    assert "--split all scores all" in plain.stderr and " of " in plain.stdout
    plain = forq("eval", base, "--task", task, "--data", new, *HELD_OUT[2:], "--split", "all")
    assert plain.returncode == 0 and f", {score['rows']} rows" in plain.stdout, plain.stderr


def test_splits_that_data_names_stay(base, tmp_path, forq):
    folder = rows(tmp_path / "own", "completion", range(60)).parent
    (folder / "rows.jsonl").rename(folder / "train.jsonl")
    (folder / "test.jsonl").write_text("".join(map(ROWS["completion"][2], range(60, 90))))
    out, how = tmp_path / "run", ("--task", "completion", "--data", folder, *HELD_OUT[:2])
    assert forq("tune", base, *how, "--steps", 1, "--out", out).returncode == 0
    told = forq("eval", out)
    assert "rows: test 4 of 30" in told.stderr and ", 4 of 30 rows" in told.stdout and "--split" not in told.stderr
    new = tmp_path / "new"
    new.mkdir()
    (new / "train.jsonl").write_text((folder / "test.jsonl").read_text())
    (new / "test.jsonl").write_text("".join(map(ROWS["completion"][2], range(90, 99))))
    assert ", 9 rows" in forq("eval", out, "--data", new).stdout
    refused = forq("eval", out, "--data", new, "--split", "all")
    assert refused.returncode == 1 and "--split all: expected data that names no splits" in refused.stderr
    refused = forq("eval", base, "--task", "sst2", "--data", new, "--split", "all")
    assert refused.returncode == 1 and "sst2 has no 'all': expected test or validation" in refused.stderr


def test_a_run_is_scored_in_the_arithmetic_it_computed_in(base, text, tmp_path, forq, monkeypatch):
    out = tmp_path / "run"
    words = ("--data", text, "--set", "task.max_length=32", "--activations", "bfloat16")
    done = forq("tune", base, "--task", "text", *words, "--steps", 1, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    test = json.loads(done.stdout)["test"]["after"]["loss"]
    losses = {
        how: json.loads(forq("eval", out, *(("--activations", how) if how else ()), "--json").stdout)["loss"]
        for how in (None, "bfloat16", "float")
    }
    assert losses[None] == losses["bfloat16"] == test != losses["float"]
    told = forq("eval", out, "--kernel", "ort", "--json")
    assert json.loads(told.stdout)["activations"] == "float" and "the run computed in bfloat16" in told.stderr
    monkeypatch.setattr("forq.models.options.choose_device", lambda device: torch.device("cuda"))
    elsewhere = json.loads(forq("eval", out, "--json").stdout)["loss"]
    assert elsewhere == losses["float"]  # a GPU computes in its own dtype
