"""The text task: what it reads, cuts, scores and refuses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from forq.errors import DataError
from forq.runs.config import TaskConfig, WatchConfig, complete
from forq.runs.older_runs import with_old_meanings, with_reading_law
from forq.tasks import Score, Writes, text
from forq.tasks.rows import corpus as _corpus
from tests import tiny_lm


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / f"{name}.txt").write_text(content, encoding="utf-8")
    return folder


def numbered(word: str, count: int) -> str:
    return "".join(f"{word} {n} .\n" for n in range(count))


@pytest.mark.parametrize("bos", [True, False])
def test_every_token_is_predicted_once_in_order(tmp_path, bos):
    task = text.open(text.example(tmp_path), tiny_lm.tokenizer(bos), seed=0, max_length=50, validation_rows=1)
    stream = [
        token
        for piece in _corpus._pieces(tmp_path / "numbers.txt")
        for token in tiny_lm.tokenizer(bos)(piece, add_special_tokens=False)["input_ids"]
    ]
    targets = torch.cat([batch.target for batch in task.batches("train")]).tolist()
    assert targets == stream[0 if bos else 1 :][: len(targets)]
    left = len(stream) - 2 * (len(stream) // 20) - len(targets)
    assert 0 <= left < 50
    batch = task.batch(0)
    assert batch.input_ids.shape == (8, 50)
    assert bool((batch.input_ids[:, 0] == 0).all()) is bos
    assert torch.equal(batch.input_ids[batch.row, batch.column + 1], batch.target)


def test_an_evaluation_is_the_mean_over_all_tokens(tmp_path):
    model = tiny_lm.model("opt")
    task = text.open(text.example(tmp_path), tiny_lm.tokenizer(), seed=0, max_length=50, batch_rows=4)
    rows = torch.cat([batch.input_ids for batch in task.batches("validation")])
    with torch.no_grad():
        want = model(input_ids=rows, labels=rows).loss
        step = task.batch(4)
        plain = model(input_ids=step.input_ids, labels=step.input_ids).loss
    score = task.evaluate(model, "validation")
    assert len(rows) % 4 != 0 and score == Score(loss=score.loss, rows=len(rows))
    assert score.loss == pytest.approx(float(want), abs=1e-5)
    assert task.loss(model, step) == pytest.approx(float(plain), abs=1e-5)


def test_named_files_are_the_splits_and_others_stay_out(tmp_path):
    data = write(tmp_path, train=numbered("film", 99), valid=numbered("good", 99), test=numbered("bad", 99))
    (data / "README.md").write_text("great great great " * 99)
    task = text.open(data, tiny_lm.tokenizer(), seed=0, max_length=32)
    shown = {split: tiny_lm.tokenizer().decode(windows.ravel().tolist()) for split, windows in task.rows.items()}
    for split, word in (("train", "film"), ("validation", "good"), ("test", "bad")):
        assert [w for w in ("film", "good", "bad", "great") if w in shown[split]] == [word]
    assert task.describe()["origin"]["validation"] == ["valid.txt"]


def test_a_missing_split_is_cut_off_the_end_of_train(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / ".hidden", b="never 1 2 3\n" * 500)
    write(tmp_path / "deep", b=numbered("good", 400))
    write(tmp_path, a=numbered("film", 400), test=numbered("bad", 99))
    task = text.open(tmp_path, tiny_lm.tokenizer(), seed=0, max_length=32)
    shown = {s: tiny_lm.tokenizer().decode(w.ravel().tolist()) for s, w in task.rows.items()}
    assert shown["train"].startswith("film 0 .") and "good" in shown["train"]
    assert "good" in shown["validation"] and "film" not in shown["validation"]
    assert set(shown["test"].split()) >= {"bad"} and "never" not in "".join(shown.values())
    assert task.describe()["origin"]["validation"] == ["the end of train"]


def test_pieces_are_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_corpus, "PIECE_BYTES", 7)
    content = "\ufeffnaïve — 日本語\nwords\r\n\rno end of a line in a very long tail ✓"
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode())
    pieces = list(_corpus._pieces(path, reading=1))
    assert "".join(pieces) == content.removeprefix("\ufeff") and len(pieces) > 5
    assert max(map(len, pieces)) < 30
    assert "".join(_corpus._pieces(path)) == path.read_text(encoding="utf-8-sig")


def test_lines_end_as_python_and_datasets_read_them(tmp_path):
    lines = numbered("film", 400)
    files = {"unix": lines, "windows": lines.replace("\n", "\r\n"), "mac": lines.replace("\n", "\r")}
    for name, content in files.items():
        (tmp_path / f"{name}.txt").write_bytes(content.encode())
    tokenizer = tiny_lm.tokenizer()
    tasks = {name: text.open(tmp_path / f"{name}.txt", tokenizer, seed=0, max_length=32) for name in files}
    assert len({task.digest for task in tasks.values()}) == 1
    before = text.open(tmp_path / "windows.txt", tokenizer, seed=0, max_length=32, reading=1)
    assert "\r\n" in tokenizer.decode(before.rows["train"][0]) and before.digest != tasks["windows"].digest
    assert text.open(tmp_path / "unix.txt", tokenizer, seed=0, max_length=32, reading=1).digest == tasks["unix"].digest


def test_the_readme_of_a_data_set_is_no_text_of_it(tmp_path):
    """As for ``datasets``; in a folder of Markdown it is a text like any other."""
    write(tmp_path, a=numbered("film", 400))
    (tmp_path / "README.md").write_text(numbered("great", 99))
    named, unread = _corpus.files(tmp_path)
    assert ([path.name for path in named["train"]], unread) == (["a.txt"], ("README.md",))
    assert [path.name for path in _corpus.files(tmp_path, 1)[0]["train"]] == ["README.md", "a.txt"]
    (tmp_path / "a.txt").rename(tmp_path / "a.md")
    assert [path.name for path in _corpus.files(tmp_path)[0]["train"]] == ["README.md", "a.md"]


def test_a_run_from_before_reads_its_texts_as_it_did():
    described = {"task": "text", "digest": "0"}
    assert with_reading_law({}, described) == {"reading": 1} and with_reading_law({}, {**described, "reading": 2}) == {}
    texts = {name: WatchConfig(task="text", data="a.txt") for name in ("old", "new")}
    other = {"rows": WatchConfig(task="completion", data="a.jsonl")}
    config = complete("qzo", [], checkpoint="c", task=TaskConfig(name="text", data="a.txt"), device="cpu")
    config = config.model_copy(update={"watch": {**texts, **other}})
    watched = {"old": described, "new": {**described, "reading": 2}, "rows": {**described, "task": "completion"}}
    begun = with_old_meanings(config, {"task": described, "watch": watched})
    assert begun.task.options == {"reading": 1}
    assert {name: watch.options for name, watch in begun.watch.items()} == {
        "old": {"reading": 1},
        "new": {},
        "rows": {},
    }


@pytest.mark.parametrize("at", [0, 6, 7, 20, 300_000])
def test_a_byte_that_is_not_utf8_is_named(tmp_path, at, monkeypatch):
    if at < 100:
        monkeypatch.setattr(_corpus, "PIECE_BYTES", 7)
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * (at - at % 2) + "é".encode()[: at % 2] + b"\xff" + b"y" * 50)
    with pytest.raises(DataError, match=rf"a\.txt: not UTF-8 at byte {at - at % 2} "):
        text.open(path, tiny_lm.tokenizer(), seed=0)
    path.write_bytes(b"x" * at + "é".encode()[:1])
    with pytest.raises(DataError, match=rf"not UTF-8 at byte {at} "):
        list(_corpus._pieces(path))


def test_too_little_text_is_refused(tmp_path):
    tokenizer = tiny_lm.tokenizer()
    with pytest.raises(DataError, match="no such file"):
        text.open(tmp_path / "none.txt", tokenizer, seed=0)
    with pytest.raises(DataError, match="no training text"):
        text.open(write(tmp_path, valid="film", test="film"), tokenizer, seed=0)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty\.txt: empty at byte 0"):
        text.open(tmp_path / "empty.txt", tokenizer, seed=0)
    (tmp_path / "short.txt").write_text("film " * 1000)
    with pytest.raises(DataError, match=r"validation has .* too few for one window of 127"):
        text.open(tmp_path / "short.txt", tokenizer, seed=0)


def test_a_sample_continues_the_test_text_and_is_the_same_each_time(tmp_path):
    model, tokenizer = tiny_lm.model("llama"), tiny_lm.tokenizer()
    model.get_output_embeddings().weight.data[len(tokenizer) :] = 0
    other = text.open(text.example(tmp_path), tokenizer, seed=0, max_length=64)
    assert other.sample(model, 12) == other.sample(model, 12)
    model.get_output_embeddings().weight.data *= 1000  # so sure of itself that sampling is greedy
    task = text.open(text.example(tmp_path), tokenizer, seed=0, max_length=64)
    assert isinstance(task, Writes)
    prompt = torch.tensor([[0, *task.rows["test"][0][:16].tolist()]])
    want = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert task.sample(model, 12) == tokenizer.decode(want[0], skip_special_tokens=True)


def test_scores_are_compared_by_their_main_number():
    assert Score(loss=1.0, rows=1).better_than(Score(loss=2.0, rows=1))
    good = Score(loss=2.0, rows=1, metrics={"accuracy": 0.9}, main="accuracy")
    assert good.better_than(Score(loss=1.0, rows=1, metrics={"accuracy": 0.8}, main="accuracy"))
    assert not good.better_than(Score(loss=1.0, rows=1, metrics={"accuracy": 0.9}, main="accuracy"))
    nan = Score(loss=np.nan, rows=1)
    assert not nan.better_than(None) and Score(loss=9.0, rows=1).better_than(nan)


def test_the_real_model_reads_shakespeare():
    if "FORQ_DATA" not in os.environ:
        pytest.skip("FORQ_DATA is not set: no real text")
    root = Path(os.environ["FORQ_DATA"])
    folder, path = root / "tinystories-656k", root / "tinyshakespeare" / "input.txt"
    if not (folder.is_dir() and path.is_file()):
        pytest.skip("FORQ_DATA holds no tinystories-656k or no tinyshakespeare")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    task = text.open(path, AutoTokenizer.from_pretrained(folder, trust_remote_code=False), seed=0)
    assert task.prefix == (1,) and task.describe()["rows"]["train"] == 3553
    score = task.evaluate(model, "validation", limit=32)
    rows = torch.cat([batch.input_ids for batch in task.batches("validation", 32)])
    with torch.no_grad():
        want = float(model(input_ids=rows, labels=rows).loss)
    assert score.loss == pytest.approx(want, abs=1e-4) and 6.0 < score.loss < 7.0
