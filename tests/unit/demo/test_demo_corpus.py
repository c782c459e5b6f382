"""The demo's texts, from a small library written here."""

from __future__ import annotations

import pytest

from forq.demo.corpus import CorpusError, cards

MODULE = '''
"""A module."""

class Box:
    def open(self, lid, *, gently=False):
        """Open the box.

        Not on the card.
        """

    def _private(self):
        """Hidden."""

def shut():
    """Shut it,
    and lock it."""

def silent(x):
    pass
'''
CARDS = {"name: shut\ntakes: nothing\ndoes: shut it, and lock it", "name: open\ntakes: lid\ndoes: open the box"}


def test_a_card_says_name_arguments_and_the_first_paragraph(tmp_path):
    for number in range(60):  # enough files for every split
        (tmp_path / f"module_{number}.py").write_text(MODULE * 4)
    for text in cards(1000, held_out_chars=300, library=tmp_path):
        whole = [card for card in text.strip().split("\n\n") if card][1:-1]  # the ends may be cut
        assert {card.strip() for card in whole} == CARDS


def test_too_little_source_is_said(tmp_path):
    (tmp_path / "alone.py").write_text(MODULE)
    with pytest.raises(CorpusError, match="standard library"):
        cards(1000, library=tmp_path)
