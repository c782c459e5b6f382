"""`--move lora` from the command line: trained, saved, replayed, verified, resumed, scored again."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.reference import gguf

OPTIONS = ("--set", "task.max_length=32", "--set", "task.validation_rows=16", "--set", "task.test_rows=16")
OPTIONS = ("--steps", 6, "--eval-every", 3, *OPTIONS)


@pytest.mark.parametrize("method", (("zoqo", "--bits", 4), ("mezo",)), ids=("grid", "float"))
def test_an_adapter_is_a_folder_of_peft_and_a_journal(base, text, tmp_path, forq, method):
    out = tmp_path / "run"
    words = ("--task", "text", "--data", text, "--move", "lora", "--rank", 4, "--recipe", *method, *OPTIONS)
    # Steps large enough to be seen within six of them.
    strong = ("--set", "estimator.eps=0.05", "--set", "rule.lr=0.01") if method == ("mezo",) else ()
    done = forq("tune", base, *words, *strong, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["checkpoint"] is None and result["adapter"] == str(out / "adapter")
    held = load_file(out / "adapter" / "adapter_model.safetensors")
    assert {x.dtype for x in held.values()} == {torch.float32} and all(name.startswith("base_model") for name in held)
    assert (out / "adapter" / "adapter_codes.safetensors").exists() == ("--bits" in method)

    words = ("--task", "text", "--data", text, "--set", "task.max_length=32", "--set", "task.test_rows=16")
    again = forq("eval", base, *words, "--adapter", out / "adapter", "--json")
    assert json.loads(again.stdout)["loss"] == result["test"]["after"]["loss"], again.stderr

    assert forq("verify", out, "--base", base).returncode == 0
    assert forq("replay", out / "journal.jsonl", "--base", base, "--out", tmp_path / "again").returncode == 0
    files = sorted(path.name for path in (out / "adapter").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((tmp_path / "again" / file).read_bytes() == (out / "adapter" / file).read_bytes() for file in files)

    unused = forq("replay", out, "--base", base, "--adapter", out / "adapter", "--out", tmp_path / "third")
    assert unused.returncode == 1 and "did not go on from an adapter" in unused.stderr

    name = sorted(held)[0]
    held[name][0, 0] += 1
    save_file(held, out / "adapter" / "adapter_model.safetensors")
    changed = forq("verify", out, "--base", base)
    assert changed.returncode != 0 and f"{out / 'adapter'} is not what the journal rebuilds" in changed.stderr


def test_adapters_are_written_for_llama_cpp(base, text, tmp_path, forq):
    out = tmp_path / "run"
    words = ("--task", "text", "--data", text, "--move", "lora", "--rank", 4, "--recipe", "mezo", *OPTIONS)
    assert forq("tune", base, *words, "--out", out).returncode == 0
    done = forq("export", out, "--to", "gguf-lora", "--out", tmp_path / "lora")
    assert done.returncode == 0 and "every weight is the same number" in done.stdout, done.stderr
    assert f"forq export {base} --to gguf" in " ".join(done.stderr.split())
    file = tmp_path / "lora" / "adapter.gguf"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    held = load_file(out / "adapter" / "adapter_model.safetensors")
    values, found = gguf.header(file)
    assert values["adapter.lora.alpha"] == 16.0 and values["general.type"] == "adapter" and len(found) == len(held)
    assert found["blk.0.ffn_down.weight.lora_a"][0][1] == 4 and found["blk.0.ffn_down.weight.lora_b"][0][0] == 4

    scales = tmp_path / "scales"
    assert forq("tune", base, "--task", "text", "--data", text, *OPTIONS, "--out", scales).returncode == 0
    (tmp_path / "empty").mkdir()
    for words, says in (
        ((out, "--to", "gguf-lora", "--out", file.parent), "--overwrite"),
        ((out, "--to", "gguf-lora", "--out", tmp_path / "x.gguf"), "in which the file will be adapter.gguf"),
        ((out, "--to", "gguf", "--out", tmp_path / "x"), "--to gguf-lora writes them"),
        ((scales, "--to", "gguf-lora", "--out", tmp_path / "x"), "expected a run that moved adapters"),
        ((base, "--to", "gguf-lora", "--out", tmp_path / "x"), "or --adapter FOLDER"),
        ((base, "--to", "awq", "--adapter", out / "adapter", "--out", tmp_path / "x"), "expected --to gguf-lora"),
        ((base, "--to", "gguf-lora", "--adapter", tmp_path / "empty", "--out", tmp_path / "x"), "expected an adapter"),
        (
            (tmp_path / "empty", "--to", "gguf-lora", "--adapter", out / "adapter", "--out", tmp_path / "x"),
            "config.json",
        ),
    ):
        refused = forq("export", *words)
        assert refused.returncode == 1 and says in " ".join(refused.stderr.split()), refused.stderr
        assert not (tmp_path / "x").exists() and not (tmp_path / "x.gguf").exists()
    again = forq("export", base, "--to", "gguf_lora", "--adapter", out / "adapter", "--out", file.parent, "--overwrite")
    assert again.returncode == 0, again.stderr


def test_an_adapter_of_a_run_is_not_used_with_another_base(base, text, tmp_path, forq):
    own, out = tmp_path / "own", tmp_path / "run"
    shutil.copytree(base, own)
    how = ("--task", "text", "--data", text)
    done = forq("tune", own, *how, "--move", "lora", "--rank", 4, "--recipe", "mezo", *OPTIONS, "--out", out)
    assert done.returncode == 0, done.stderr
    assert forq("eval", out, *how).returncode == 0

    held = load_file(own / "model.safetensors")
    name = next(name for name in sorted(held) if name.endswith("scales"))
    save_file(held | {name: held[name] * 2}, own / "model.safetensors", {"format": "pt"})
    for words in (
        ("eval", out, *how),
        ("predict", out, "--task", "sst2", "--data", text),
        ("sample", out, "--prompt", "a", "--out", tmp_path / "a.png"),
        ("export", out, "--to", "gguf-lora", "--out", tmp_path / "lora"),
    ):
        refused = forq(*words)
        assert refused.returncode == 1 and refused.stdout == "", refused.stderr
        says = " ".join(refused.stderr.split())
        assert f"{out}: expected the checkpoint that the run began from" in says and f"at {own}" in says, says
    assert not (tmp_path / "lora").exists()


def test_scales_and_adapters_move_beside_each_other(base, text, tmp_path, forq):
    out = tmp_path / "run"
    words = ("--task", "text", "--data", text, "--move", "scales,lora", "--targets", "q_proj,v_proj", *OPTIONS)
    done = forq("tune", base, *words, "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "checkpoint").is_dir() and (out / "adapter").is_dir()
    assert forq("verify", out, "--base", base).returncode == 0
    assert (
        "checkpoint/ and adapter/: the moved tensors are those that the journal names: yes"
        in forq("verify", out).stdout
    )
    assert forq("replay", out, "--base", base, "--out", tmp_path / "again").returncode == 0
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        side = out / "checkpoint" if "/" not in file else out
        assert (tmp_path / "again" / file).read_bytes() == (side / file).read_bytes()

    refused = forq("export", out, "--to", "gptq", "--out", tmp_path / "x")
    assert refused.returncode == 1 and not (tmp_path / "x").exists()
    assert f"give {out / 'checkpoint'} to leave the adapter out" in " ".join(refused.stderr.split())
    assert forq("export", out, "--to", "gguf-lora", "--out", tmp_path / "lora").returncode == 0
    alone = forq("export", out / "checkpoint", "--to", "awq", "--out", tmp_path / "awq")
    assert alone.returncode == 0 and f"adapter {out / 'adapter'}, which is left out" in alone.stderr


def test_a_checkpoint_scored_without_the_adapter_it_was_tuned_with_says_so(base, text, tmp_path, forq):
    import forq as library

    model = library.load(base, device="cpu")
    words = {"recipe": "qzo-slopes", "move": "scales,lora", "steps": 1, "out": tmp_path / "run"}
    small = {"max_length": 32, "validation_rows": 4, "test_rows": 4, "batch_rows": 2}
    run = library.tune(model, "text", text, **words, settings={"task": small})
    run.save(tmp_path / "saved")
    at = ("--task", "text", "--data", text, "--set", "task.max_length=32", "--set", "task.test_rows=4")
    for alone, adapter in (("run/checkpoint", "run/adapter"), ("saved", "saved/adapter")):
        said = forq("eval", tmp_path / alone, *at)
        assert said.returncode == 0 and f"adapter {tmp_path / adapter}, which is left out" in said.stderr, said.stderr
        assert "left out" not in forq("eval", tmp_path / alone, *at, "--adapter", tmp_path / adapter).stderr
    assert "left out" not in forq("eval", tmp_path / "run", *at).stderr


def patterned(base, folder):
    """An adapter as PEFT leaves it before training, of a kind that forq does not begin: √r, ranks of their own."""
    import forq

    ranks = {"q_proj": 8, "down_proj": 2}
    settings = {"peft_type": "LORA", "r": 3, "lora_alpha": 5, "use_rslora": True, "rank_pattern": ranks}
    settings |= {"alpha_pattern": {"layers.0.self_attn.q_proj": 7}, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    held, draw = {}, torch.Generator().manual_seed(0)
    model = forq.load(base, device="cpu")
    for name, module in model.named_modules():
        end = name.rpartition(".")[2]
        if end in settings["target_modules"]:
            rank = ranks.get(end, 3)
            shapes = {"A": (rank, module.in_features), "B": (module.out_features, rank)}
            for factor, shape in shapes.items():
                start = torch.randn(shape, generator=draw) * 0.1 if factor == "A" else torch.zeros(shape)
                held[f"base_model.model.{name}.lora_{factor}.weight"] = start
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(held, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("recipe", ["qzo", "mezo"])
def test_a_run_goes_on_from_an_adapter(base, text, tmp_path, forq, recipe):
    start, out = patterned(base, tmp_path / "start"), tmp_path / "run"
    words = ("--task", "text", "--data", text, "--move", "lora", "--recipe", recipe, *OPTIONS)
    done = forq("tune", base, *words, "--adapter", start, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    how = ("--task", "text", "--data", text, "--set", "task.max_length=32", "--set", "task.test_rows=16")
    for side, folder in (("before", start), ("after", out / "adapter")):
        scored = json.loads(forq("eval", base, *how, "--adapter", folder, "--json").stdout)
        assert scored["loss"] == result["test"][side]["loss"]
    written = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert len(set(written["rank_pattern"].values()) | {written["r"]}) == 3 and written["alpha_pattern"]
    ours, theirs = (
        load_file(out / "adapter" / "adapter_model.safetensors"),
        load_file(start / "adapter_model.safetensors"),
    )
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in theirs.items()}

    for command, more in (("verify", ()), ("replay", ("--out", tmp_path / "again"))):
        refused = forq(command, out, "--base", base, *more)
        assert refused.returncode == 1 and "give its folder by --adapter" in refused.stderr
        assert forq(command, out, "--base", base, "--adapter", start, *more).returncode == 0
    for file in (out / "adapter").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()

    cut = tmp_path / "cut"
    (cut / "state").mkdir(parents=True)
    (cut / "config.toml").write_bytes((out / "config.toml").read_bytes())
    lines = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "journal.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    moved = tmp_path / "moved"
    start.rename(moved)
    lost = forq("tune", base, "--resume", "--out", cut)
    assert lost.returncode == 1 and "expected an adapter" in lost.stderr
    assert forq("tune", base, "--resume", "--adapter", moved, "--out", cut).returncode == 0
    for file in (out / "adapter").iterdir():
        assert (cut / "adapter" / file.name).read_bytes() == file.read_bytes()

    held = load_file(moved / "adapter_model.safetensors")
    held[sorted(held)[0]][0, 0] += 1
    save_file(held, moved / "adapter_model.safetensors")
    for words in (("verify", out, "--base", base), ("tune", base, "--resume", "--out", cut)):
        other = forq(*words, "--adapter", moved)
        assert other.returncode == 1 and "adapter" in other.stderr, other.stderr


def test_what_an_adapter_cannot_go_on_with(base, text, tmp_path, forq):
    start = patterned(base, tmp_path / "start")
    words = ("--task", "text", "--data", text, "--out", tmp_path / "run", *OPTIONS)
    (tmp_path / "empty").mkdir()
    whole = json.loads((start / "adapter_config.json").read_text())
    for more, says in (
        (("--adapter", start), "add --move lora"),
        (("--adapter", start, "--move", "lora", "--rank", 4), "expected no setting of new adapters, found lora.rank"),
        (("--adapter", start, "--move", "lora", "--recipe", "zoqo"), "grid of 8 bits"),
        (("--adapter", tmp_path / "empty", "--move", "lora"), "expected an adapter"),
        (("--adapter", tmp_path / "run0", "--move", "lora"), "name "),
        (("--adapter", tmp_path / "nowhere", "--move", "lora"), "expected an adapter"),
        (("--adapter", tmp_path / "saves", "--move", "lora"), "modules_to_save"),
    ):
        shutil.copytree(start, tmp_path / "run0" / "adapter", dirs_exist_ok=True)
        shutil.copytree(start, tmp_path / "saves", dirs_exist_ok=True)
        (tmp_path / "saves" / "adapter_config.json").write_text(json.dumps(whole | {"modules_to_save": ["lm_head"]}))
        done = forq("tune", base, *words, *more)
        assert done.returncode == 1 and says in done.stderr and not (tmp_path / "run").exists(), done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--bits", 8), "--move lora"),
        (("--rank", 4, "--move", "scales"), "--rank is of adapters"),
        (("--move", "lora", "--bits", 9, "--recipe", "zoqo"), "lora.bits"),
        (("--move", "lora", "--targets", "nothing"), "q_proj"),
        (("--move", "lora", "--recipe", "zoqo", "--set", "lora.bit=4"), "lora.bit"),
    ],
)
def test_words_that_cannot_be(base, text, tmp_path, forq, words, says):
    done = forq("tune", base, "--task", "text", "--data", text, "--out", tmp_path / "run", *words, *OPTIONS)
    assert done.returncode == 1 and says in done.stderr and not (tmp_path / "run").exists()
