from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.records import Drop
from bon.shown import encodable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zürich, 数学 🙂 \\x", "Zürich, 数学 🙂 \\x"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("right\rwrong", "right\\rwrong"),
        ("a\tb\x00\x7f", "a\\tb\\x00\\x7f"),
        ("user\u202egnp.exe\u2066", "user\\u202egnp.exe\\u2066"),
        ("a\u2028b", "a\\u2028b"),
        ("cut \ud83d", "cut \\ud83d"),
        ("one\ntwo", "one\\ntwo"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_cell_may_keep_its_lines() -> None:
    assert printable("one\ntwo\x1b[A", keep_lines=True) == "one\ntwo\\x1b[A"


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_any_other_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters()))
def test_nothing_that_controls_a_terminal_is_left(text: str) -> None:
    shown = printable(text)
    assert not {"Cc", "Cs", "Zl", "Zp"} & {unicodedata.category(one) for one in shown}
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not bidi & {unicodedata.bidirectional(one) for one in shown}


def test_halves_of_characters_can_be_stored() -> None:
    assert encodable("half \ud83d, whole \ud83d\ude00, é") == "half \ufffd, whole \U0001f600, é"
    text = "nothing to mend: é \U0001f600"
    assert encodable(text) is text
    assert Drop("function_failed", "ValueError: bad \ud800").detail == "ValueError: bad \ufffd"
