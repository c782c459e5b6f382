"""What moves: several kinds of leaves, each with a radius and a step of its own, and factors for single coordinates."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import forq as library
from forq.checkpoints import Checkpoint
from forq.layers.linear import QuantLinear
from forq.models.load import load
from forq.runs import journal
from forq.scalars.losses import means

OPTIONS = ("--set", "task.max_length=32", "--set", "task.validation_rows=16", "--set", "task.test_rows=16")
OPTIONS = ("--steps", 24, "--eval-every", 8, *OPTIONS)


def changed(folder, base):
    one, two = Checkpoint.open(folder), Checkpoint.open(base)
    return {name for name in two.info if not torch.equal(one.read(name), two.read(name))}


@pytest.fixture(scope="module")
def run(base, text, tmp_path_factory):
    """A run of scales and norms whose η of the norms was given by hand."""
    out = tmp_path_factory.mktemp("moves") / "run"
    settings = {"norms": {"lr": 0.002}, "task": {"max_length": 32, "validation_rows": 16}}
    library.tune(str(base), "text", text, steps=24, eval_every=8, out=out, move="scales,norms", settings=settings)
    return out


def test_kinds_move_apart_and_each_has_its_own_numbers(run, base):
    past = journal.read(run / "journal.jsonl")
    notes = [line.notes for line in past.lines if line.kind == "calibrate"][-1]
    assert {"scales.eps", "scales.lr", "norms.eps", "norms.clip"} <= set(notes)
    moved = changed(run / "checkpoint", base)
    kinds = {name.rpartition(".")[2] for name in moved}
    assert kinds == {"scales", "weight"} and any("norm" in name for name in moved)
    assert all(name.endswith(".scales") or "norm" in name for name in moved)
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    scores = [row["score"] for row in rows if "score" in row]
    assert min(score["loss"] for score in scores) < scores[0]["loss"]


def test_it_replays_and_verifies(run, base, tmp_path, forq):
    assert forq("verify", run, "--base", base).returncode == 0
    assert forq("replay", run / "journal.jsonl", "--base", base, "--out", tmp_path / "again").returncode == 0
    tensors = "model.safetensors"
    assert (tmp_path / "again" / tensors).read_bytes() == (run / "checkpoint" / tensors).read_bytes()


def test_embeddings_move_with_the_head_that_is_tied_to_them(base, text, tmp_path, forq):
    out = tmp_path / "run"
    done = forq("tune", base, "--task", "text", "--data", text, "--out", out, "--move", "embeddings", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert changed(out / "checkpoint", base) == {"model.embed_tokens.weight"}
    assert forq("verify", out, "--base", base).returncode == 0


def test_zero_points_move_by_whole_cells(base, text, tmp_path, forq):
    out, words = tmp_path / "run", ("--task", "text", "--data", text, *OPTIONS)
    done = forq("tune", base, *words, "--out", out, "--move", "zeros", "--set", "zeros.noise=sparse:0.02")
    assert done.returncode == 0, done.stderr
    moved = changed(out / "checkpoint", base)
    assert moved and all(name.endswith(".qzeros") for name in moved)
    before, after = (load(folder, "cpu", kernel="reference") for folder in (base, out / "checkpoint"))
    for name, layer in before.named_modules():
        if isinstance(layer, QuantLinear):
            step = after.get_submodule(name).weight.zeros.int() - layer.weight.zeros.int()
            assert step.abs().max() <= 4
    header = journal.read(out / "journal.jsonl").header
    assert header["kernel"] in ("native", "reference"), "the fast kernel holds its zero points fast"
    assert forq("verify", out, "--base", base).returncode == 0
    assert forq("replay", out, "--base", base, "--out", tmp_path / "again").returncode == 0
    both = forq("tune", base, *words, "--out", tmp_path / "both", "--move", "scales,zeros")
    assert both.returncode == 0, both.stderr


def test_a_mask_keeps_what_it_masks(base, text, tmp_path, forq):
    name = "model.layers.0.mlp.up_proj.scales"
    shapes = {leaf.name: tuple(leaf.read().shape) for leaf in library.space(load(base, "cpu")).leaves}
    factors = {leaf: torch.zeros(1, 1) for leaf in shapes} | {name: torch.ones(shapes[name])}
    factors[name][0] = 0
    save_file(factors, tmp_path / "mask.safetensors")
    out, words = tmp_path / "run", ("--task", "text", "--data", text, *OPTIONS)
    done = forq("tune", base, *words, "--out", out, "--profile", tmp_path / "mask.safetensors")
    assert done.returncode == 0, done.stderr
    assert changed(out / "checkpoint", base) == {name}
    before, after = Checkpoint.open(base).read(name), Checkpoint.open(out / "checkpoint").read(name)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1:], after[1:])

    (tmp_path / "mask.safetensors").unlink()
    assert forq("verify", out, "--base", base).returncode == 0, "the run keeps the profile it was given"
    alone = tmp_path / "alone.jsonl"
    alone.write_bytes((out / "journal.jsonl").read_bytes())
    missing = forq("replay", alone, "--base", base, "--out", tmp_path / "again")
    assert missing.returncode == 1 and "--profile" in missing.stderr
    again = ("replay", alone, "--base", base, "--out", tmp_path / "again", "--profile", out / "profile.safetensors")
    assert forq(*again).returncode == 0
    factors[name][1] = 2
    save_file(factors, out / "profile.safetensors")
    other = forq("verify", out, "--base", base)
    assert other.returncode == 1 and "profile" in other.stderr and "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--move", "scales,norm"), "did you mean 'norms'"),
        (("--move", "scales,biases"), "expected a model with biases to move"),
        (("--move", "scales,all-float"), "all-float cannot be combined"),
        (("--set", "norms.lr=0.1"), "add it to --move"),
        (("--set", "norm.lr=0.1"), "no setting is called"),
        (("--move", "scales,norms", "--set", "norms.unit=free"), "give a number"),
        (("--move", "scales,norms", "--set", "norms.lr=-1"), "expected more than 0"),
    ],
)
def test_a_wrong_kind_is_named(base, text, tmp_path, forq, words, says):
    done = forq("tune", base, "--task", "text", "--data", text, "--out", tmp_path / "run", *OPTIONS, *words)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_profile_that_lets_nothing_move_is_refused(base, text, tmp_path, forq):
    leaves = library.space(load(base, "cpu")).leaves
    save_file({leaf.name: torch.zeros(1, 1) for leaf in leaves}, tmp_path / "p.safetensors")
    words = ("--task", "text", "--data", text, "--out", tmp_path / "run", "--profile", tmp_path / "p.safetensors")
    done = forq("tune", base, *words)
    assert done.returncode == 1 and "nothing would move" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ({"nobody.scales": torch.ones(1)}, "expected names of tensors that move"),
        ({"model.layers.0.mlp.up_proj.scales": torch.ones(3, 3, 3)}, "broadcasts"),
        ({"model.layers.0.mlp.up_proj.scales": -torch.ones(1)}, "0 or more"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_profile_is_named(base, text, tmp_path, forq, factors, says):
    path = tmp_path / "profile.safetensors"
    path.write_bytes(b"nonsense") if factors is None else save_file(factors, path)
    words = ("--task", "text", "--data", text, "--out", tmp_path / "run", *OPTIONS, "--profile", path)
    done = forq("tune", base, *words)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_zoqo_moves_the_codes_themselves_and_replays(base, text, tmp_path, forq):
    out, words = tmp_path / "run", ("--task", "text", "--data", text, *OPTIONS)
    done = forq("tune", base, *words, "--out", out, "--recipe", "zoqo", "--move", "codes")
    assert done.returncode == 0, done.stderr
    past = journal.read(out / "journal.jsonl")
    assert past.header["kernel"] in ("native", "reference") and past.header["portable"]
    assert sum(line.moved.changed for line in past.lines if line.kind == "train") > 0
    trained = sum(line.kind == "train" for line in past.lines)
    verdict = forq("verify", out, "--base", base)
    assert verdict.returncode == 0, verdict.stderr
    last = forq("replay", out, "--base", base, "--out", tmp_path / "last", "--step", trained)
    assert last.returncode == 0, last.stderr
    moved = changed(tmp_path / "last", base)
    assert moved and all(name.endswith(".qweight") for name in moved)


def test_a_run_that_audits_can_end_itself_resumes_and_replays(base, text, tmp_path, forq):
    out, words = tmp_path / "run", ("--task", "text", "--data", text, "--seed", 0, *OPTIONS)
    sets = ("estimator.name=three_point", "estimator.noise=uniform_grid:7", "rule.audit=2")
    done = forq("tune", base, *words, "--out", out, "--recipe", "zoqo", *(w for s in sets for w in ("--set", s)))
    assert done.returncode == 0 and "2 audits in a row" in done.stdout, done.stderr
    past = journal.read(out / "journal.jsonl")
    *lines, saved = past.lines
    assert saved.kind == "saved" and len(lines) < past.header["method"]["steps"] and lines[-1].digest is not None
    assert all(line.losses[0].mean <= min(means(line.losses)) for line in lines[-2:])
    scores = [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
    assert scores[-1]["trained"] == len(lines), "the last point is scored"
    assert json.loads((out / "result.json").read_text())["certificate"] == 2.0
    assert forq("verify", out, "--base", base).returncode == 0
    assert forq("replay", out, "--base", base, "--out", tmp_path / "again").returncode == 0
    again = forq("tune", base, "--data", text, "--out", out, "--resume")
    assert again.returncode == 0 and "2 audits in a row" in again.stdout, again.stderr
    assert journal.read(out / "journal.jsonl").lines == past.lines
    # Killed within its last step: what is left goes on to the same end.
    rows = (out / "journal.jsonl").read_text().splitlines(keepends=True)
    (out / "journal.jsonl").write_text("".join(rows[:-2]))
    assert forq("tune", base, "--data", text, "--out", out, "--resume").returncode == 0
    assert journal.read(out / "journal.jsonl").lines == past.lines


def test_blocks_that_do_not_move_keep_their_bytes(base, text, tmp_path, forq):
    words = ["--task", "text", "--data", text, "--steps", "2", "--set", "task.max_length=32"]
    done = forq("tune", base, *words, "--blocks", "1", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "run" / "checkpoint"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(".1." in name and name.endswith("scales") for name in moved), moved
    assert forq("verify", tmp_path / "run", "--base", base).returncode == 0
    again = forq("tune", base, *words, "--blocks", "0", "--out", tmp_path / "run", "--resume")
    assert again.returncode == 1 and "--blocks: the run has 1, found 0" in again.stderr, again.stderr
    assert "beyond" not in done.stderr
    further = forq("tune", base, *words, "--blocks", "1-9", "--out", tmp_path / "further")
    assert further.returncode == 0 and "--blocks 1-9 goes further, but no block beyond 1 has" in further.stderr
    none = forq("tune", base, *words, "--blocks", "7", "--out", tmp_path / "other")
    assert none.returncode == 1 and "--blocks 7" in none.stderr and not (tmp_path / "other").exists(), none.stderr
