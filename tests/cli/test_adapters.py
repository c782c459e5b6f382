"""`--move lora` from the command line: trained, saved, replayed, verified, resumed, scored again."""

import json

import pytest
import torch
from safetensors.torch import load_file

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

    name = sorted(held)[0]
    held[name][0, 0] += 1
    from safetensors.torch import save_file

    save_file(held, out / "adapter" / "adapter_model.safetensors")
    assert forq("verify", out, "--base", base).returncode != 0


def test_scales_and_adapters_move_beside_each_other(base, text, tmp_path, forq):
    out = tmp_path / "run"
    words = ("--task", "text", "--data", text, "--move", "scales,lora", "--targets", "q_proj,v_proj", *OPTIONS)
    done = forq("tune", base, *words, "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "checkpoint").is_dir() and (out / "adapter").is_dir()
    assert forq("verify", out, "--base", base).returncode == 0
    assert forq("replay", out, "--base", base, "--out", tmp_path / "again").returncode == 0
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        side = out / "checkpoint" if "/" not in file else out
        assert (tmp_path / "again" / file).read_bytes() == (side / file).read_bytes()


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
