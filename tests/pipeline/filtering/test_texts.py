"""Texts as arrays: turns of a prompt, digests, words and n-grams."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from bon.pipeline.filtering.texts import digests, last_user_turn, user_turns, words
from bon.records import MESSAGES_TYPE


def prompts(*conversations: list[tuple[str, str]]) -> pa.Array:
    return pa.array(
        [[{"role": r, "content": c} for r, c in turns] for turns in conversations], MESSAGES_TYPE
    )


def same(one: str, other: str, **options: bool) -> bool:
    keys = digests(pa.array([one, other]), **options)
    return keys[0].tolist() == keys[1].tolist()


def test_user_turns_and_the_last_of_them():
    array = prompts(
        [("system", "S"), ("user", "a"), ("assistant", "x"), ("user", "b")],
        [("system", "only")],
        [("user", "c")],
        [],
    )
    assert user_turns(array).to_pylist() == ["a\nb", "", "c", ""]
    assert last_user_turn(array).to_pylist() == ["b", None, "c", None]
    assert user_turns(array.slice(2)).to_pylist() == ["c", ""]
    assert last_user_turn(array.slice(1, 2)).to_pylist() == [None, "c"]


def test_digests_see_through_white_space_and_unicode_forms_only():
    assert same("a  b\n\nc ", " a b c")
    assert same("caf\u00e9", "cafe\u0301")
    assert not same("a b", "ab")
    assert not same("A", "a")
    assert same("ÄA", "äa", ignore_case=True)


@given(st.lists(st.text(max_size=12), max_size=8), st.integers(0, 4))
def test_digests_are_equal_exactly_where_normalised_texts_are(texts, start):
    import re
    import unicodedata

    array = pa.array(texts, pa.string()).slice(start)
    keys = [tuple(key) for key in digests(array).tolist()]
    plain = [
        re.sub(r"[\t\n\v\f\r ]+", " ", unicodedata.normalize("NFC", text)).strip()
        for text in texts[start:]
    ]
    for one, key in zip(plain, keys, strict=True):
        for other, other_key in zip(plain, keys, strict=True):
            assert (one == other) == (key == other_key)


def test_words_are_lower_case_letters_and_digits():
    found = words(pa.array(["It's a  Dog, isn’t it?", None, "-- 42", "我爱你 ok"]))
    assert found.of(0) == ["its", "a", "dog", "isnt", "it"]
    assert found.of(1) == []
    assert found.of(2) == ["42"]
    assert found.of(3) == ["我", "爱", "你", "ok"]


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=7), max_size=6), st.integers(1, 4)
)
def test_ngrams_hash_alike_exactly_where_they_are_alike(texts, n):
    hashes, first = words(pa.array([" ".join(t) for t in texts], pa.string())).ngrams(n)
    expected = [
        tuple(text[start : start + n])
        for text in texts
        for start in range(max(len(text) - n + 1, min(len(text), 1)))
    ]
    assert len(hashes) == len(expected) == first[-1]
    assert len(set(zip(expected, hashes.tolist(), strict=True))) == len(set(expected))
    assert len(set(hashes.tolist())) == len(set(expected))
