"""What a power cut, a stray deletion or a second process can do to a run's folder, and what resuming makes of it."""

import shutil

import pytest
import torch

import forq
from forq.errors import ConfigError, JournalError
from forq.runs import journal
from forq.runs.open_task import open_task
from forq.runs.run import Run

SETTINGS = {"task": {"max_length": 32, "validation_rows": 16}}


@pytest.fixture(scope="module")
def finished(base, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "run"
    return forq.tune(forq.load(base), "text", text, steps=130, eval_every=26, out=out, settings=SETTINGS)


def again(folder, base, done):
    model = forq.load(base)
    run = Run.resume(folder, done.config, model, open_task(done.config.task, model, done.config.seed))
    for _ in run.events():
        pass
    run.finish()
    return run


def cut(folder, lines):
    path = folder / "journal.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[: 1 + lines]))


@pytest.mark.parametrize(
    "gone", [(), ("metrics.jsonl",), ("state/best.safetensors",), ("state/last.safetensors",), ("state",)]
)
@pytest.mark.parametrize("lines", [5, 110, None])
def test_any_missing_piece_is_made_anew(finished, base, tmp_path, gone, lines):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    for name in gone:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if "state" in gone:
        (folder / "state").mkdir()
    if lines is not None:
        cut(folder, lines)
    run = again(folder, base, finished)
    assert run.first == finished.first and run.best == finished.best
    assert journal.read(run.journal).lines == journal.read(finished.journal).lines
    assert (folder / "checkpoint/model.safetensors").read_bytes() == (
        finished.folder / "checkpoint/model.safetensors"
    ).read_bytes()


def test_a_base_by_another_name_is_the_same_base(finished, base, tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(finished.folder, folder)
    shutil.copytree(base, moved)
    cut(folder, 20)
    assert again(folder, moved, finished).best == finished.best


def test_another_setting_is_named(finished, base, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    rule = finished.config.method.rule.model_copy(update={"newton": 0.25})
    method = finished.config.method.model_copy(update={"rule": rule})
    config = finished.config.model_copy(update={"method": method})
    model = forq.load(base)
    with pytest.raises(JournalError, match=r"rule = newton = 0\.6, found rule = newton = 0\.25"):
        Run.resume(tmp_path / "run", config, model, open_task(config.task, model, 0))


def test_a_run_killed_at_birth_can_begin_again_and_a_bad_setting_leaves_nothing(finished, base, tmp_path):
    model = forq.load(base)
    folder = tmp_path / "run"
    (folder / "state").mkdir(parents=True)
    (folder / "config.toml").write_text("")
    (folder / "journal.jsonl").write_bytes(b'{"forq":1,"la')
    Run.begin(folder, finished.config, model, finished.task)
    assert journal.read(folder / "journal.jsonl").lines == ()
    with pytest.raises(ConfigError, match="a run is there already: continue it with resume=True"):
        Run.begin(folder, finished.config, model, finished.task)
    estimator = finished.config.method.estimator.model_copy(update={"name": "two_points"})
    config = finished.config.model_copy(
        update={"method": finished.config.method.model_copy(update={"estimator": estimator})}
    )
    with pytest.raises(ConfigError, match="did you mean 'two_point'"):
        Run.begin(tmp_path / "new", config, model, finished.task)
    assert not (tmp_path / "new").exists()


def test_two_processes_on_one_run_are_kept_apart(finished, base, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    cut(folder, 10)
    model = forq.load(base)
    run = Run.resume(folder, finished.config, model, finished.task)
    one = run.events()
    next(one)
    with pytest.raises(JournalError, match="another forq"):
        next(Run.resume(folder, finished.config, forq.load(base), finished.task).events())
    one.close()
    assert len(journal.read(folder / "journal.jsonl").lines) == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mezo_on_a_half_precision_file_replays_and_scores_what_it_saves(text, tmp_path, dtype):
    from tests import tiny_lm

    source = tmp_path / "float"
    tiny_lm.model("llama", vocab_size=300).to(torch.bfloat16).save_pretrained(source)
    tiny_lm.tokenizer(vocabulary=300).save_pretrained(source)
    settings = {**SETTINGS, "rule": {"lr": 1e-3}}
    model, out = forq.load(source, dtype=dtype), tmp_path / "r"
    run = forq.tune(model, "text", text, recipe="mezo", steps=8, out=out, settings=settings)
    assert forq.verify(run.folder, source).checkpoint is True
    saved = forq.load(run.checkpoint, dtype=dtype)
    assert run.task.evaluate(saved, "validation") == run.best.score


def test_a_header_that_says_too_little_is_refused(tmp_path):
    for header, says in (({"law": 2}, "law 1"), ({"law": 1}, "header")):
        path = tmp_path / f"{header['law']}.jsonl"
        journal.Writer.create(path, header).close()
        with pytest.raises(JournalError, match=says):
            forq.verify(path)


def test_a_whole_number_clips_too(base):
    assert forq.QZO(forq.space(forq.load(base)), lr=1e-3, eps=1e-2, clip=100).settings.rule.clip == 100.0
    with pytest.raises(ConfigError, match="lr"):
        forq.QZO(forq.space(forq.load(base)), lr=-1.0)
