"""Calls of a reward function as groups of candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.datasets import assistant, user

from bon.api.batch import Batch, read_batch
from bon.errors import InputError
from bon.records import Candidate, Drop, Scores

SYSTEM = {"role": "system", "content": "Be short."}


def sizes(batch: Batch) -> list[int]:
    return [len(group.responses) for group in batch.groups]


def echoed(batch: Batch) -> list[Scores]:
    """Score a response by the number that it is; `-` has none."""
    results = []
    for group in batch.groups:
        scores = tuple(None if text == "-" else float(text) for text in group.responses)
        reasons = {i: Drop("dash", "a dash") for i, one in enumerate(scores) if one is None}
        zeros = (0,) * len(scores)
        results.append(Scores(group.prompt_id, scores, zeros, (False,) * len(zeros), reasons))
    return results


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", 3]),
        st.sampled_from(["-", "1", "2", None]),
        st.sampled_from("xy"),
    ),
    max_size=12,
)


@given(CALLS, st.booleans())
def test_every_completion_gets_its_own_reward(calls: list[Any], as_messages: bool) -> None:
    prompts = [[user(p)] if as_messages and p != 3 else p for p, _, _ in calls]
    completions = [[assistant(c)] if as_messages and c else c for _, c, _ in calls]

    batch = read_batch(prompts, completions, {"answer": [a for _, _, a in calls]})
    rewards, drops = batch.spread(echoed(batch))

    bad = [p == 3 or c is None for p, c, _ in calls]
    assert rewards == [
        None if wrong or c == "-" else float(c) for wrong, (_, c, _) in zip(bad, calls, strict=True)
    ]
    assert len(drops) == rewards.count(None)
    ids = [group.prompt_id for group in batch.groups]
    assert len(set(ids)) == len(ids)
    for group, places in zip(batch.groups, batch.positions, strict=True):
        assert list(places) == list(range(places[0], places[-1] + 1))
        for place in places:
            assert group.messages[-1]["content"] == calls[place][0]
            assert group.extra == {"answer": calls[place][2]}
    for before, after in zip(batch.positions, batch.positions[1:], strict=False):
        if before[-1] + 1 == after[0]:  # neighbours that stayed apart differ
            assert calls[before[-1]][::2] != calls[after[0]][::2]


def test_texts_and_messages_are_the_same_groups() -> None:
    texts = read_batch(["q", "q", "r"], ["1", "2", "3"], {"answer": [1, 1, 2]})
    chats = read_batch(
        [[user("q")], [user("q")], [user("r")]],
        [[assistant("1")], [assistant("2")], [assistant("3")]],
        {"answer": [1, 1, 2]},
    )
    assert texts == chats
    assert sizes(texts) == [2, 1]
    assert texts.groups[0].responses == ("1", "2")


def test_another_answer_is_another_group() -> None:
    batch = read_batch(["q"] * 3, ["1", "2", "3"], {"answer": ["x", "x", "y"]})
    assert sizes(batch) == [2, 1]
    assert [group.extra for group in batch.groups] == [{"answer": "x"}, {"answer": "y"}]


def test_what_is_no_column_is_passed_by() -> None:
    columns = {
        "answer": np.array([7, 7]),
        "image": [object(), object()],
        "trainer_state": object(),
        "log_extra": print,
        "environments": None,
        "mode": "train",
    }
    batch = read_batch(["q", "q"], ["1", "2"], columns)
    assert [group.extra for group in batch.groups] == [{"answer": 7}]
    assert sizes(batch) == [2]


def test_numbers_of_numpy_and_torch_in_a_list_are_numbers() -> None:
    import torch

    for number in (np.int64(4), np.int32(4), np.float32(4), np.array(4), torch.tensor(4)):
        (group,) = read_batch(["q", "q"], ["1", "2"], {"answer": [number, 4]}).groups
        assert group.extra == {"answer": 4}
        assert type(group.extra["answer"]) in (int, float)


def test_other_scalars_of_numpy_are_what_python_has_for_them() -> None:
    columns = {"ok": [np.True_], "text": [np.str_("x")], "objects": np.array([np.int64(4)], object)}
    (group,) = read_batch(["q"], ["1"], columns).groups
    assert [(one, type(one)) for one in group.extra.values()] == [
        (True, bool), ("x", str), (4, int),
    ]  # fmt: skip


def test_arrays_in_a_column_keep_prompts_apart_and_nothing_fails() -> None:
    batch = read_batch(["q"] * 2, ["1", "2"], {"box": [[np.zeros(2)], [np.zeros(2)]]})
    assert sizes(batch) == [1, 1]


def test_a_completion_of_several_turns_is_scored_at_its_last() -> None:
    turns = [assistant("let me see"), {"role": "tool", "content": "4"}, assistant("It is 4.")]
    batch = read_batch([[SYSTEM, user("q")]], [turns], {})
    (group,) = batch.groups
    assert group.messages == (SYSTEM, user("q"), *turns[:2])
    assert group.responses == ("It is 4.",)


def test_sampled_tokens_are_what_the_pool_would_know_of_candidates() -> None:
    turns = [assistant("a"), {"role": "tool", "content": "4"}, assistant("b")]
    ids = [[5, 6], [], [7], [8, 9]]
    batch = read_batch(["q", "q", "r", "r"], ["1", "", "2", turns], {"completion_ids": ids})
    first, second, third = (group.candidates for group in batch.groups)
    assert first == (
        Candidate(0, "1", None, 2, None, None, (5, 6)),
        Candidate(1, "", None, 0, None, None, ()),
    )
    assert [one.num_tokens for one in second] == [1]
    assert third == ()  # the tokens are those of three turns


@pytest.mark.parametrize("said", [None, [[1], [2], [3]], "12", [1, 2]])
def test_sampled_tokens_of_another_form_are_passed_by(said: Any) -> None:
    (group,) = read_batch(["q", "q"], ["1", "2"], {"completion_ids": said}).groups
    assert group.candidates == ()
    assert group.extra == {}


@pytest.mark.parametrize(
    ("prompt", "completion", "reason"),
    [
        ("q", [], "missing_response"),
        ("q", [user("no")], "missing_response"),
        ("q", None, "wrong_type"),
        ("q", "half a \ud83d", "invalid_unicode"),
        ([user("half a \ud83d")], "1", "invalid_unicode"),
        (None, "1", "wrong_type"),
        ([{"role": "pirate", "content": "q"}], "1", "unknown_role"),
        ("q", [{"role": "assistant", "content": "", "tool_calls": [{}]}], "unsupported_content"),
    ],
)
def test_what_cannot_be_read_has_a_reason(prompt: Any, completion: Any, reason: str) -> None:
    batch = read_batch(["q", prompt, "q"], ["1", completion, "2"], {})
    rewards, drops = batch.spread(echoed(batch))
    assert rewards == [1.0, None, 2.0]
    assert [drop.reason for drop in drops] == [reason]


@pytest.mark.parametrize(
    ("prompts", "columns", "name"),
    [(["q"], {}, "prompts"), (["q", "q"], {"answer": ["4"]}, "answer")],
)
def test_lists_of_other_lengths_are_refused(prompts: Any, columns: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' has 1 values for 2 completions"):
        read_batch(prompts, ["1", "2"], columns)


def test_no_completions_are_no_groups() -> None:
    batch = read_batch([], [], {"answer": []})
    assert batch.spread([]) == ([], [])
    assert batch.groups == ()
