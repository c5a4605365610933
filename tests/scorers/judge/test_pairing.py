from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.scorers.judge.pairing import chosen_pairs

TEXTS = st.lists(st.text(), unique=True, max_size=40)
MOST = st.none() | st.integers(1, 200)


def connected(num_texts: int, pairs: list[tuple[int, int]]) -> bool:
    reached, size = {0}, 0
    while len(reached) != size:
        size = len(reached)
        reached |= {one for pair in pairs if reached & set(pair) for one in pair}
    return size == max(num_texts, 1)


@given(st.text(), TEXTS, MOST)
def test_all_are_connected_in_no_more_pairs_than_asked(
    prompt_id: str, texts: list[str], most: int | None
) -> None:
    pairs = chosen_pairs(prompt_id, texts, most)
    num, every = len(texts), len(texts) * (len(texts) - 1) // 2
    assert len(set(pairs)) == len(pairs)
    assert all(0 <= left < right < num for left, right in pairs)
    assert connected(num, pairs)
    wanted = most if most is not None else (every if num <= 8 else 4 * num)
    assert len(pairs) == min(every, max(wanted, num - 1))
    counts = Counter(one for pair in pairs for one in pair)
    if num > 1:
        assert max(counts.values()) - min(counts[place] for place in range(num)) <= 2


@given(st.text(), TEXTS, MOST, st.randoms(use_true_random=False))
def test_the_same_texts_meet_in_any_order(
    prompt_id: str, texts: list[str], most: int | None, random: object
) -> None:
    def met(some: list[str]) -> set[frozenset[str]]:
        return {frozenset((some[a], some[b])) for a, b in chosen_pairs(prompt_id, some, most)}

    shuffled = [*texts]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert met(shuffled) == met(texts)


@pytest.mark.parametrize(("num", "pairs", "each"), [(2, 1, 1), (8, 28, 7), (9, 36, 8), (16, 64, 8)])
def test_how_many_by_default(num: int, pairs: int, each: int) -> None:
    found = chosen_pairs("p", [str(number) for number in range(num)], None)
    counts = Counter(one for pair in found for one in pair)
    assert (len(found), set(counts.values())) == (pairs, {each})


def test_the_prompt_draws_who_meets_whom() -> None:
    texts = [str(number) for number in range(16)]
    assert chosen_pairs("a", texts, 20) == chosen_pairs("a", texts, 20)
    assert chosen_pairs("a", texts, 20) != chosen_pairs("b", texts, 20)
