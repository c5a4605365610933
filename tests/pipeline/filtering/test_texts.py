"""Texts as arrays: turns of a prompt, digests, words and n-grams."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.pipeline.conversations import last_user_turn
from bon.pipeline.filtering.texts import digests, user_turns, words
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's a  Dog, isn’t it?", ["it's", "a", "dog", "isn't", "it"]),
        (None, []),
        ("The answer is -5.", ["the", "answer", "is", "-5"]),
        ("(−5) $-.5 2-3 x - 5", ["(", "-5", ")", "$", "-.5", "2-3", "x", "-", "5"]),
        ("1.5, 1,000; 3:30!", ["1.5", "1,000", "3:30"]),
        ("x=5 a!=b f'(x)", ["x", "=", "5", "a", "!", "=", "b", "f", "'", "(", "x", ")"]),
        ("<= 👍🏽 ❤️", ["<", "=", "👍", "🏽", "❤"]),
        ("“Well,” (he said.)", ["well", "(", "he", "said", ")"]),
        ("我爱你。 ok", ["我", "爱", "你", "ok"]),
        ("「」", []),
        ("हिन्दी में", ["हिन्दी", "में"]),
    ],
)
def test_words_keep_what_has_a_meaning(text, expected):
    found = words(pa.array(["before", text, "after"], pa.string()))
    assert found.of(1) == expected
    assert (found.of(0), found.of(2)) == (["before"], ["after"])


@pytest.mark.parametrize(
    ("one", "other"),
    [("The answer is -5.", "The answer is 5."), ("1.5", "15"), ("x=5", "x-5"), ("👍", "👎"),
     ("<=", ">="), ("a != b", "a = b"), (":)", ":("), (".5", "5"), ("50%", "50"), ("?", "!")],
)  # fmt: skip
def test_texts_that_differ_in_a_symbol_have_other_words(one, other):
    found = words(pa.array([one, other]))
    assert found.of(0) != found.of(1)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
def test_words_of_a_text_do_not_depend_on_the_others(texts):
    together = words(pa.array(texts))
    for place, text in enumerate(texts):
        alone = words(pa.array([text]))
        assert together.of(place) == alone.of(0)
        start, end = together.start_T[place : place + 2]
        assert together.hash_W[start:end].tolist() == alone.hash_W.tolist()


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
