"""A journal keeps every bit, finds every edit, and forgives a torn last line only."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forq.errors import JournalError
from forq.runs import journal
from forq.runs.journal import Line, Writer
from forq.scalars.losses import from_means
from forq.scalars.moves import Moved

LINES = (
    Line(0, "calibrate", from_means((1.0, math.nan)), notes={"eps": 0.1}),
    Line(1, "train", from_means((0.1 + 0.2, math.inf, -math.inf)), Moved(3, 1, 9)),
    Line(2, "train", from_means((2.5, 2.25)), Moved(9, 0, 9), digest="ab"),
)


def write(path, lines=LINES):
    writer = Writer.create(path, {"law": 1, "base": "x"})
    for line in lines:
        writer.write(line)
    writer.close()
    return path


def same(a, b):
    return repr(a) == repr(b)  # NaN equals itself as text


def test_round_trip_keeps_every_bit(tmp_path):
    found = journal.read(write(tmp_path / "j"))
    assert found.header["law"] == 1 and same(found.lines, LINES)
    assert found.forwards == 7 and found.torn_bytes == 0


@given(st.floats(allow_nan=False))
def test_floats_round_trip(x):
    assert journal.decode(journal.encode(Line(0, "train", from_means((x,))))).losses == from_means((x,))


def test_a_torn_tail_is_cut_and_continued(tmp_path):
    path = write(tmp_path / "j")
    whole = path.read_bytes()
    last = whole[: whole.rstrip(b"\n").rfind(b"\n") + 1]
    for size in range(len(last), len(whole)):
        path.write_bytes(whole[:size])
        found = journal.read(path)
        assert len(found.lines) == 2 and found.torn_bytes == size - len(last)
        writer = Writer.extend(found)
        writer.write(LINES[2])
        writer.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("row", [0, 1, 2, 3])
def test_an_edit_anywhere_is_found_and_named(tmp_path, row):
    path = write(tmp_path / "j")
    rows = path.read_bytes().splitlines(keepends=True)
    for place in range(len(rows[row]) - 1):
        edited = bytearray(rows[row])
        edited[place] ^= 1
        path.write_bytes(b"".join([*rows[:row], bytes(edited), *rows[row + 1 :]]))
        with pytest.raises(JournalError, match=f"line {row + 1}"):
            journal.read(path)


def test_a_line_taken_out_is_found(tmp_path):
    path = write(tmp_path / "j")
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:2] + rows[3:]))
    with pytest.raises(JournalError, match="line 3"):
        journal.read(path)


@pytest.mark.parametrize("data", [b"", b"{}\n", b"not json\n", b"\x00" * 100, b'{"forq":1}'])
def test_what_is_no_journal_is_refused(tmp_path, data):
    path = tmp_path / "j"
    path.write_bytes(data)
    with pytest.raises(JournalError):
        journal.read(path)


def test_a_journal_is_never_overwritten(tmp_path):
    write(tmp_path / "j")
    with pytest.raises(JournalError, match="--resume"):
        Writer.create(tmp_path / "j", {})
    with pytest.raises(JournalError, match="expected a run's journal, found none"):
        journal.read(tmp_path / "absent")


def test_two_writers_are_refused(tmp_path):
    path = write(tmp_path / "j")
    whole = path.read_bytes()
    one = Writer.extend(journal.read(path))
    with pytest.raises(JournalError, match="another forq"):
        Writer.extend(journal.read(path))
    stale = journal.read(path)
    one.write(Line(3, "train", from_means((1.0,))))
    one.close()
    with pytest.raises(JournalError, match="grown"):
        Writer.extend(stale)
    assert path.read_bytes().startswith(whole)
