"""Train and test: a prompt's text and the seed alone decide on which side it lies."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from bon.pipeline.splits import in_test, prompt_texts, without_last
from bon.records import MESSAGES_TYPE, Message

message = st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": st.text()})
conversations = st.lists(st.lists(message, max_size=4), max_size=20)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)


def column(rows: list[list[Message]]) -> pa.Array:
    return pa.array(rows, MESSAGES_TYPE)


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


@given(conversations, shares, st.integers(0, 2**32))
def test_order_copies_and_chunks_change_nothing(
    rows: list[list[Message]], share: float, seed: int
) -> None:
    side = in_test(column(rows), share, seed)
    assert side.shape == (len(rows),)
    assert in_test(column(rows[::-1]), share, seed).tolist() == side.tolist()[::-1]
    chunked = pa.chunked_array([column(rows), column(rows)], MESSAGES_TYPE)
    assert in_test(chunked, share, seed).tolist() == side.tolist() * 2


@given(conversations, shares, shares, st.integers(0, 9))
def test_a_larger_share_only_adds(
    rows: list[list[Message]], one: float, other: float, seed: int
) -> None:
    small, large = (in_test(column(rows), share, seed) for share in sorted((one, other)))
    assert not (small & ~large).any()


def test_the_share_is_met_on_average() -> None:
    prompts = column([user(f"question {n}") for n in range(20_000)])
    for share in (0.02, 0.3):
        # four standard deviations of a binomial
        assert abs(in_test(prompts, share, 7).mean() - share) < 4 * (share / 20_000) ** 0.5
    assert not np.array_equal(in_test(prompts, 0.3, 7), in_test(prompts, 0.3, 8))


@given(conversations)
def test_texts_are_equal_only_for_equal_conversations(rows: list[list[Message]]) -> None:
    texts = prompt_texts(column(rows))
    for one, text in zip(rows, texts, strict=True):
        assert [other == text for other in texts] == [other == one for other in rows]
        assert json.loads(text) == [[m["role"], m["content"]] for m in one]


def test_roles_and_turns_are_part_of_the_text() -> None:
    one, other = user("a"), user("b")
    system: list[Message] = [{"role": "system", "content": "a"}]
    rows = [one, system, one + other, user("ab"), user('a"],["user","b'), system + one, []]
    assert len(set(prompt_texts(column(rows)))) == len(rows)


@given(conversations, st.integers(0, 5))
def test_without_last(rows: list[list[Message]], start: int) -> None:
    assert without_last(column(rows).slice(start)).to_pylist() == [r[:-1] for r in rows[start:]]
    chunks = pa.chunked_array([column(rows), column(rows).slice(start)], MESSAGES_TYPE)
    assert without_last(chunks).to_pylist() == [r[:-1] for r in rows + rows[start:]]
