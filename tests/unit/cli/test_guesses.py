"""What the demo shows: guesses by kind of text, and one card letter by letter."""

from __future__ import annotations

from forq.cli._guesses import Guesses, Piece, Row, typical

CARD = [("name", ":", " x"), ("\n", "takes", ":", " no", "thing"), ("\n", "does", ":", " adds"), ("\n\n",)]


def row(*right: str, text: tuple[str, ...] = tuple(piece for line in CARD for piece in line)) -> Row:
    made, start = [], 0
    for piece in text:
        made.append(Piece(piece, piece in right, start))
        start += len(piece)
    return tuple(made)


def test_labels_and_other_text_are_counted_apart() -> None:
    side = Guesses((row("takes", "does", " adds"),), 2.0)
    assert side.right(bool) == 2 / 6  # three labels, each a word and a colon
    assert side.right(lambda label: not label) == 1 / 7
    assert side.right(lambda _: True) == 3 / 13


def test_letters_of_wrong_guesses_are_dots_and_spaces_stay() -> None:
    (name, takes, does) = typical(Guesses((row(),), 1.0), Guesses((row("takes", "thing", "\n"),), 1.0))
    assert name == ("name: x", "····· ·", "····· ·")
    assert takes == ("takes: nothing", "······ ·······", "takes· ··thing")
    assert does == ("does: adds", "····· ····", "····· ····")


def test_the_card_that_is_shown_gains_as_much_as_the_mean() -> None:
    before = Guesses((row(), row(), row()), 1.0)
    after = Guesses((row(), row("takes", "does"), row("takes", "does", "name", "thing", " adds", ":")), 1.0)
    shown = typical(before, after)
    assert [line[2] for line in shown] == ["····· ·", "takes· ·······", "does· ····"]


def test_half_a_card_at_the_end_of_a_row_is_not_shown() -> None:
    half = row("takes", text=("name", ":", " y", "\n", "takes", ":"))
    whole = row("does")
    (name, _, _) = typical(Guesses((half, whole), 1.0), Guesses((half, whole), 1.0))
    assert name[0] == "name: x"
