"""forq tune on several ranks: the bytes of one process, and what a rank that differs or ends does to the others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from forq.runs import journal
from tests import ranks

LOSSES = ("--recipe", "mezo", "--move", "scales")
SETTINGS = ("--set", "task.max_length=32", "--set", "task.validation_rows=20", "--set", "task.test_rows=8")


def words(base: Path, text: Path, out: Path, *more: object, steps: int = 6) -> list[object]:
    begin = ["tune", base, "--task", "text", "--data", text, "--out", out]
    return [*begin, "--steps", steps, "--eval-every", 3, *SETTINGS, *more]


@pytest.fixture(scope="module")
def work(base, text, tmp_path_factory) -> Path:
    """Every launch of this file, one after the other from one process, which imports everything once."""
    folder = tmp_path_factory.mktemp("ranks")
    other = folder / "other.txt"
    other.write_text(text.read_text().replace("film", "book"))

    def of(name: str, *more: object) -> list[object]:
        return words(base, text, folder / name, *more)

    launches = {
        "one": ranks.ranks(1, *of("one")),
        **{f"{count} ranks": ranks.ranks(count, *of(f"{count} ranks")) for count in (2, 3, 4)},
        # A batch of six forward passes: four ranks share the two probes of a step by rows.
        "rows": ranks.ranks(1, *of("rows", *LOSSES, "--micro-batch-tokens", 48)),
        "rows 4": ranks.ranks(4, *of("rows 4", *LOSSES, "--micro-batch-tokens", 48)),
        "idle": ranks.ranks(3, *of("idle", *LOSSES)),
        "mixed": [{"words": list(map(str, of("mixed", "--kernel", kernel)))} for kernel in ("reference", "ort")],
        "data": [{"words": list(map(str, words(base, data, folder / "data")))} for data in (text, other)],
        "settings": [
            {"words": list(map(str, of("settings", "--set", f"rule.newton={newton}")))} for newton in (0.6, 0.5)
        ],
        "nan": [*ranks.ranks(1, *of("nan")), *ranks.ranks(1, *of("nan"), spoil="nan")],
        "flip": [*ranks.ranks(1, *of("flip")), *ranks.ranks(1, *of("flip"), spoil="flip")],
        "die": [*ranks.ranks(1, *of("die")), *ranks.ranks(1, *of("die"), spoil="die")],
        "stop": [
            *ranks.ranks(1, *of("stop", "--rank-timeout", 2)),
            *ranks.ranks(1, *of("stop", "--rank-timeout", 2), spoil="stop"),
        ],
        "interrupt": [*ranks.ranks(1, *of("interrupt"), spoil="interrupt"), *ranks.ranks(1, *of("interrupt"))],
    }
    again = {name: ranks.ranks(2, *of(name, "--resume")) for name in ("stop", "flip", "2 ranks")}
    launches |= {f"{name} again": launch for name, launch in again.items()}
    # A rank without the chief's folder: its own is elsewhere.
    launches["apart"] = [*ranks.ranks(1, *of("apart")), *ranks.ranks(1, *of("elsewhere"))]
    options = {"max_length": 32, "validation_rows": 20, "test_rows": 8}
    called = {"model": str(base), "task": "text", "data": str(text), "out": str(folder / "python"), "steps": 6}
    launches["python"] = [{"python": {**called, "eval_every": 3, "settings": {"task": options}}} for _ in range(2)]
    # The chief's machine is gone, and rank 0 is new: the note is on rank 1.
    launches["swapped"] = [*ranks.ranks(1, *of("new", "--resume")), *ranks.ranks(1, *of("elsewhere", "--resume"))]
    apart = [{**called, "out": str(folder / name), "steps": 2} for name in ("python apart", "python elsewhere")]
    launches["python apart"] = [{"python": {**call, "settings": {"task": options}}} for call in apart]
    spoken = folder / "reward.py"
    spoken.write_text(
        f"open({str(folder / 'reward.ran')!r}, 'a').write('x')\ndef short(prompt, text, row): return 1.0\n"
    )
    launches["reward"] = [*ranks.ranks(1, *of("reward", "--reward", f"{spoken}:short")), *ranks.ranks(1, *of("reward"))]
    launches["watch"] = ranks.ranks(2, *of("watch", "--watch", f"other=text:{other}"))
    launches["gone"] = ranks.ranks(2, *of("elsewhere", "--resume"))
    for name, launch in launches.items():
        for rank, of_rank in enumerate(launch):
            of_rank["out"] = str(folder / f"{name}.{rank}.txt")
    (folder / "codes.json").write_text(
        json.dumps(dict(zip(launches, ranks.run(list(launches.values()), folder), strict=True)))
    )
    return folder


def codes(work: Path, name: str) -> list[int]:
    found: list[int] = json.loads((work / "codes.json").read_text())[name]
    return found


def screen(work: Path, name: str, rank: int) -> str:
    return (work / f"{name}.{rank}.txt").read_text()


def same(one: Path, other: Path) -> bool:
    files = ["journal.jsonl", *(f"checkpoint/{path.name}" for path in (one / "checkpoint").iterdir())]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


@pytest.mark.parametrize("name", ["2 ranks", "3 ranks", "4 ranks"])
def test_any_number_of_ranks_writes_the_bytes_of_one_process(work, name):
    assert set(codes(work, name)) == {0}, screen(work, name, 0)
    assert same(work / "one", work / name)
    scores = [json.loads((work / run / "result.json").read_text()) for run in ("one", name)]
    assert scores[0]["validation"] == scores[1]["validation"] and scores[0]["test"] == scores[1]["test"]


def test_ranks_share_a_probe_by_rows(work):
    assert codes(work, "rows 4") == [0] * 4, screen(work, "rows 4", 0)
    assert same(work / "rows", work / "rows 4")
    assert "had nothing to measure" not in screen(work, "rows 4", 0)


def test_python_does_the_same(work):
    assert codes(work, "python") == [0, 0], screen(work, "python", 0)
    assert same(work / "one", work / "python")


def test_only_the_chief_speaks(work):
    assert "validation" in screen(work, "2 ranks", 0) and screen(work, "2 ranks", 1) == ""


def test_the_folder_says_what_each_rank_did(work):
    found = json.loads((work / "3 ranks" / "ranks.json").read_text())
    assert found["steps"] == len(journal.read(work / "3 ranks" / "journal.jsonl").lines) - 1
    assert [row["threads"] for row in found["ranks"]] == [1, 1, 1]
    # The point itself on every rank, and of the other eight as many as it is fast: on a busy machine perhaps none.
    assert all(row["forwards"] >= found["steps"] and row["bytes"] > 0 for row in found["ranks"])
    assert sum(row["forwards"] for row in found["ranks"]) >= (3 + 8) * (found["steps"] - 1)


def test_the_report_shows_the_ranks(work):
    from forq.report.page import facts
    from forq.report.record import read

    shown = dict(facts(read(work / "2 ranks")))
    shares = [int(re.search(r"(\d+)% of the forward passes", shown[f"rank {rank}"])[1]) for rank in (0, 1)]
    assert 99 <= sum(shares) <= 101 and min(shares) > 0 and "bytes a step" in shown["rank 1"]
    assert not any(name.startswith("rank") for name, _ in facts(read(work / "one")))


def test_ranks_without_work_are_counted(work):
    assert codes(work, "idle") == [0, 0, 0], screen(work, "idle", 0)
    assert "1 of 3 ranks had nothing to measure; more directions" in screen(work, "idle", 0)


def test_ranks_of_other_kernels_agree_bit_for_bit(work):
    """Every step compares a checksum of the masters, so that an end in good order says it."""
    assert codes(work, "mixed") == [0, 0], screen(work, "mixed", 0)
    kernels = [row["kernel"] for row in json.loads((work / "mixed" / "ranks.json").read_text())["ranks"]]
    assert kernels == ["reference", "ort"]
    assert not same(work / "one", work / "mixed")


@pytest.mark.parametrize(("name", "what"), [("data", "the chief has task rows"), ("settings", "rule.newton")])
def test_a_rank_that_differs_is_refused_by_name(work, name, what):
    assert codes(work, name) == [1, 1]
    for rank in (0, 1):
        assert "rank 1: " in screen(work, name, rank) and what in screen(work, name, rank)
    assert not (work / name / "journal.jsonl").exists()


def test_a_rank_that_answers_no_number_is_named(work):
    assert codes(work, "nan") == [1, 1]
    assert "rank 1 answered no finite loss in 3 steps in a row" in screen(work, "nan", 0)


def test_a_replica_that_differs_is_named_with_its_line(work):
    assert codes(work, "flip") == [1, 1]
    trained = [line.step for line in journal.read(work / "flip" / "journal.jsonl").lines if line.kind == "train"]
    for rank in (0, 1):
        assert f"rank 1: its replica differs from the others' after line {trained[4]}" in screen(work, "flip", rank)


@pytest.mark.parametrize(("name", "why"), [("die", "it was killed"), ("stop", "rank 1 gave no sign of life for")])
def test_the_group_ends_with_a_rank(work, name, why):
    assert codes(work, name)[0] == 1 and why in screen(work, name, 0)
    assert not (work / "die" / "checkpoint").exists()


@pytest.mark.parametrize("name", ["stop", "flip"])
def test_the_run_goes_on_from_its_journal(work, name):
    assert codes(work, f"{name} again") == [0, 0], screen(work, f"{name} again", 0)
    assert same(work / "one", work / name)


def test_ctrl_c_says_how_to_go_on(work):
    assert codes(work, "interrupt")[0] == 130 and "--resume" in screen(work, "interrupt", 0)


def test_a_finished_run_is_shown(work):
    assert codes(work, "2 ranks again") == [0, 0]
    assert "this run is finished" in screen(work, "2 ranks again", 0)


def test_a_rank_may_have_no_folder_of_the_chief(work):
    assert codes(work, "apart") == [0, 0] and same(work / "one", work / "apart")
    assert [path.name for path in (work / "elsewhere").iterdir()] == ["rank.log"]


def test_a_run_whose_folder_is_gone_does_not_begin_anew(work):
    assert codes(work, "gone") == [1, 1]
    assert "this machine followed a run whose folder is on" in screen(work, "gone", 0)


def test_nor_where_the_chief_is_new(work):
    assert codes(work, "swapped") == [1, 1]
    assert "rank 1: " in screen(work, "swapped", 0) and "followed a run whose folder is on" in screen(
        work, "swapped", 0
    )
    assert not (work / "new").exists()


def test_python_leaves_the_note_too(work):
    assert codes(work, "python apart") == [0, 0], screen(work, "python apart", 1)
    assert [path.name for path in (work / "python elsewhere").iterdir()] == ["rank.log"]


def test_code_that_only_the_chief_names_is_not_run(work):
    assert codes(work, "reward") == [1, 1] and not (work / "reward.ran").exists()
    assert "rank 1: --reward: expected" in screen(work, "reward", 0)


def test_watches_are_refused(work):
    assert codes(work, "watch") == [1, 1]
    assert "--watch: expected one process, found 2 ranks" in screen(work, "watch", 0)


def test_a_port_in_use_is_said(base, text, tmp_path, monkeypatch, capsys):
    import socket

    from forq.errors import RunError
    from forq.runs.ranks.rendezvous import meet

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port)):
            monkeypatch.setenv(name, str(value))
        with pytest.raises(RunError, match="port is in use: expected a free MASTER_PORT"):
            meet(wait=5.0)
