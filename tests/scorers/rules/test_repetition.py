from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rules import fingerprint, rewards, scorer_of

from bon.errors import SettingsError


def test_one_minus_the_share_of_repeats() -> None:
    # 7 words, 4 runs of four, all different
    assert rewards("rule:repetition", "a b c d e f g") == [1.0]
    # a b a b a b a b: five runs of four, two of them different
    assert rewards("rule:repetition", "a b " * 4) == [pytest.approx(2 / 5)]
    # the same by single words: 8, of which 2 are different
    assert rewards("rule:repetition?n=1", "a b " * 4) == [pytest.approx(2 / 8)]
    assert rewards("rule:repetition?n=2", "a b a c") == [1.0]


def test_fewer_than_n_units_cannot_repeat() -> None:
    assert rewards("rule:repetition", "", " \n", "no no no") == [1.0, 1.0, 1.0]


def test_characters_for_texts_without_spaces() -> None:
    text = "好的好的好的好的"  # 8 characters, 7 pairs, 2 of them different
    assert rewards("rule:repetition?n=2&unit=chars", text) == [pytest.approx(2 / 7)]
    assert rewards("rule:repetition?n=2", text) == [1.0]


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 5))
def test_it_is_the_share_of_first_occurrences(words: list[str], n: int) -> None:
    (found,) = rewards(f"rule:repetition?n={n}", " ".join(words))
    grams = [words[i : i + n] for i in range(len(words) - n + 1)]
    first = sum(gram not in grams[:i] for i, gram in enumerate(grams))
    assert found == pytest.approx(first / len(grams) if grams else 1.0)


def test_the_fingerprint_has_its_options() -> None:
    assert fingerprint("rule:repetition") == fingerprint("rule:repetition?n=4&unit=words")
    assert fingerprint("rule:repetition") != fingerprint("rule:repetition?n=3")


@pytest.mark.parametrize("options", ["n=0", "n=101", "n=x", "unit=lines"])
def test_what_cannot_be_is_refused(options: str) -> None:
    with pytest.raises(SettingsError, match="bad value for the option"):
        scorer_of(f"rule:repetition?{options}")
