"""Every command helps itself; listing is light; inspecting, quantizing and scoring say what they found."""

import errno
import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from forq.coordinates.leaf import GROUPS
from forq.inspection import memory
from tests.fixtures import bnb8, torchao

COMMANDS = ("tune", "report", "replay", "verify", "inspect", "quantize", "export", "demo", "ls", "models", "eval")


def test_help_names_every_command(forq):
    said = forq("--help")
    assert said.returncode == 0 and all(name in said.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    from typer.testing import CliRunner

    from forq.cli import app

    said = CliRunner().invoke(app, [name, "--help"])
    assert said.exit_code == 0 and "Usage" in said.output


def test_wrong_usage_is_exit_code_2(forq):
    assert forq("tune").returncode == 2
    assert forq("tune", "x", "--out", "y", "--no-such-flag").returncode == 2
    assert forq("dance").returncode == 2


def test_listing_and_importing_load_neither_torch_nor_numpy():
    code = (
        "import sys; sys.argv = ['forq', 'ls']\n"
        "import forq, forq.errors, forq.runs.journal, forq.scalars.calibrations\n"
        "import forq.scalars.estimators.two_point, forq.scalars.rules.clip\n"
        "from forq.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_ls_shows_each_family_and_refuses_others(forq):
    found = json.loads(forq("ls", "--json").stdout)
    assert "gptq" in found["formats"] and "qzo" in found["recipes"] and all(found["tasks"].values())
    assert json.loads(forq("ls", "rules", "--json").stdout).keys() == {"rules"}
    shown, every = (forq("ls", "recipes", *more).stdout.splitlines() for more in ((), ("--all",)))
    first = [{line.split()[0] for line in lines[1:]} for lines in (shown[:-1], every)]
    assert {"qzo", "zoqo"} <= first[0] and "mezo" not in first[0] and "mezo" in shown[-1]
    assert first[1] == set(found["recipes"]), "--json has the names that the list shows"
    wrong = forq("ls", "rule")
    assert wrong.returncode == 1 and "did you mean 'rules'" in wrong.stderr


def test_inspect_counts_what_is_there(base, forq):
    found = json.loads(forq("inspect", base, "--json").stdout)
    assert (found["format"], found["bits"], found["group_size"], found["layers"]) == ("gptq", 4, 16, 14)
    quantized = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert found["quantized"] == quantized and found["scales"] == quantized // 16
    assert found["parameters"] == quantized + 300 * 32 + 5 * 32
    peaks = {row["method"]: row["memory_bytes"] for row in found["estimates"]}
    assert set(peaks) == {"AdamW", "SGD", "MeZO", "QLoRA", "forq"} and peaks["AdamW"] == 16 * found["parameters"]
    said = forq("inspect", base).stdout
    assert "QLoRA" in said and "a forward pass of 1,024 tokens takes at least" in said
    assert "nothing is quantized" not in said and "packed codes" in said


def test_inspect_says_of_floats_that_nothing_is_quantized(base, tmp_path, forq):
    assert forq("export", base, "--to", "float32", "--out", tmp_path / "floats").returncode == 0
    found = json.loads(forq("inspect", tmp_path / "floats", "--json").stdout)
    assert {row["method"] for row in found["estimates"]} == {"AdamW", "SGD", "MeZO", "forq"}
    said = forq("inspect", tmp_path / "floats").stdout
    assert "nothing is quantized" in said and "packed codes" not in said


def test_the_kinds_that_move_are_all_in_the_help(forq):
    said = forq("tune", "--help").stdout
    assert all(kind in said for kind in GROUPS)


def test_inspect_says_a_scale_a_row(tmp_path, forq):
    told = forq("inspect", bnb8.example(tmp_path / "rows")).stdout
    assert "bnb8, 8 bits, one scale a row" in told and "group" not in told
    matrix = torchao.example(tmp_path / "matrix", **torchao.VARIANTS["int8-dynamic-matrix"])
    assert "torchao, 8 bits, one scale a matrix" in forq("inspect", matrix).stdout


def test_a_run_is_told_from_a_checkpoint(tmp_path, forq):
    (tmp_path / "journal.jsonl").touch()
    done = forq("inspect", tmp_path)
    assert done.returncode == 1 and "found a run's journal; name its folder checkpoint/" in done.stderr


def test_what_may_not_be_read_is_not_said_to_be_written(base, forq, monkeypatch):
    def refuse(ckpt):
        raise PermissionError(errno.EACCES, "Permission denied", "model.safetensors")

    monkeypatch.setattr(memory, "summary", refuse)
    done = forq("inspect", base)
    assert (done.returncode, done.stderr) == (1, "forq: model.safetensors: Permission denied\n")


def test_inspect_refuses_what_is_no_checkpoint(tmp_path, forq):
    done = forq("inspect", tmp_path)
    assert done.returncode == 1 and "config.json" in done.stderr and "Traceback" not in done.stderr


def test_quantize_and_eval(base, text, tmp_path, forq):
    twice = forq("quantize", base, tmp_path / "q")
    assert twice.returncode == 1 and "Traceback" not in twice.stderr
    nowhere, both = forq("quantize", base), forq("quantize", base, tmp_path / "q", "--out", tmp_path / "r")
    assert nowhere.returncode == 2 and "give --out FOLDER" in nowhere.stderr
    assert both.returncode == 2 and "leave one out" in both.stderr
    score = forq("eval", base, "--task", "text", "--data", text, "--set", "task.test_rows=8", "--json")
    assert json.loads(score.stdout)["rows"] == 8
    assert "loss" in forq("eval", base, "--task", "text", "--data", text, "--set", "task.test_rows=8").stdout


def test_the_version_is_told(forq):
    done = forq("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"forq {version('forq')}\n", "")
