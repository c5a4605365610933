"""Gopher's rules, each by hand (Rae et al. 2021, Table A1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.config.filters import Repetition
from bon.repetition import RULES, first_broken_rule, repetition_shares


def distinct(count: int, start: int = 0) -> list[str]:
    """Words of four letters that are all different."""
    return [f"w{number:03d}" for number in range(start, start + count)]


def test_duplicate_lines_count_from_the_second_on():
    shares = repetition_shares("aaaa\nbb\naaaa\n\naaaa\ncc")
    assert shares["duplicate_lines"] == 2 / 5
    assert shares["duplicate_line_chars"] == 8 / 16


def test_duplicate_paragraphs_are_parted_by_blank_lines():
    shares = repetition_shares("one\ntwo\n\nthree\n \none\ntwo\n\n\n")
    assert shares["duplicate_paragraphs"] == 1 / 3
    assert shares["duplicate_paragraph_chars"] == 7 / 19  # "one\ntwo" twice and "three"
    assert shares["duplicate_lines"] == 2 / 5


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_top_ngram_counts_with_every_occurrence(n):
    gram, rest = distinct(n), distinct(20 - 2 * n, 100)
    shares = repetition_shares(" ".join([*gram, *rest[:5], *gram, *rest[5:]]))
    assert shares[f"top_{n}_gram"] == pytest.approx(2 * n / 20)


def test_the_longest_of_equally_frequent_ngrams_counts():
    shares = repetition_shares("a b x1 long word x2 a b x3 long word x4")
    assert shares["top_2_gram"] == pytest.approx(16 / 28)  # "long word" twice of 28 letters


def test_overlapping_occurrences_count_each_word_once():
    assert repetition_shares("ha ha ha ha")["top_2_gram"] == 1.0


def test_ngrams_that_occur_once_are_no_repetition():
    assert set(repetition_shares(" ".join(distinct(50))).values()) == {0.0}


@pytest.mark.parametrize("n", range(5, 11))
def test_duplicate_ngrams_count_from_the_second_on_and_each_word_once(n):
    block, rest = distinct(10), distinct(20, 100)
    text = " ".join([*block, *rest[:7], *block, *rest[7:]])
    assert repetition_shares(text)[f"duplicate_{n}_grams"] == pytest.approx(10 / 40)


def test_a_repeat_shorter_than_n_is_no_duplicate_ngram():
    block, rest = distinct(5), distinct(20, 100)
    shares = repetition_shares(" ".join([*block, *rest, *block]))
    assert shares["duplicate_5_grams"] == pytest.approx(5 / 30)
    assert shares["duplicate_6_grams"] == 0.0


def test_defaults_are_the_papers():
    limits = Repetition()
    assert [getattr(limits, rule) for rule in RULES] == [
        0.30, 0.20, 0.30, 0.20, 0.20, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.10,
    ]  # fmt: skip


def test_the_first_broken_rule_is_named_and_its_limit_still_passes():
    text = "\n".join([*distinct(14), *["same"] * 7])  # 6 repeats of 21 lines
    assert first_broken_rule(text, Repetition()) == (RULES.index("duplicate_line_chars"), 24 / 84)
    lenient = dict.fromkeys(RULES, 1.0)
    assert first_broken_rule(text, Repetition(**lenient)) is None
    exact = {**lenient, "duplicate_lines": 6 / 21}
    assert first_broken_rule(text, Repetition(**exact)) is None
    below = {**lenient, "duplicate_lines": 6 / 21 - 1e-9}
    assert first_broken_rule(text, Repetition(**below)) == (0, 6 / 21)


def test_short_texts_pass_unless_asked_for():
    assert first_broken_rule("no no no no", Repetition()) is None
    assert first_broken_rule("no no no no", Repetition(min_words=0)) is not None
    assert first_broken_rule("", Repetition(min_words=0)) is None


@given(st.text(alphabet="ab \n", max_size=80))
def test_shares_are_shares_and_longer_ngrams_repeat_no_more(text):
    shares = repetition_shares(text)
    assert set(shares) == set(RULES)
    assert all(0.0 <= share <= 1.0 for share in shares.values())
    longer = [shares[f"duplicate_{n}_grams"] for n in range(5, 11)]
    assert longer == sorted(longer, reverse=True)
