"""Encoding, equal conversations once, assembly: with a reward that is computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from support.tiny_models import tokenizer

from bon.chat import ChatTemplate
from bon.records import CandidateGroup, Drop
from bon.scorers.conversations import score_conversations
from bon.scorers.encoding import ConversationEncoder, Encoded

pytest.importorskip("transformers")

REFUSING = (
    "{% if messages[-1]['content'] == 'no' %}{{ raise_exception('not this') }}{% endif %}"
    "{{ messages[0]['content'] + messages[-1]['content'] }}"
)


def encoder(max_length: int = 100) -> ConversationEncoder:
    chat = ChatTemplate(tokenizer(), REFUSING, "reward model", "--reward-template")
    return ConversationEncoder(chat, max_length, "left", 264)


def group(prompt: str, *responses: str) -> CandidateGroup:
    return CandidateGroup(prompt, ({"role": "user", "content": prompt},), responses)


def lengths(items: Sequence[Encoded]) -> list[float | Drop]:
    """Reward a conversation by its length; those of 4 tokens fail, of 5 are not finite."""
    special: dict[int, float | Drop] = {4: Drop("vllm_error", "of 4"), 5: math.nan}
    return [special.get(len(item.tokens), float(len(item.tokens))) for item in items]


def test_results_are_in_the_order_of_the_responses() -> None:
    first, second = score_conversations(
        encoder(), [group("p", "", "ab", "a"), group("pqrstu", "")], lengths
    )
    assert (first.prompt_id, first.scores, first.num_tokens) == ("p", (1.0, 3.0, 2.0), (1, 3, 2))
    assert (second.prompt_id, second.scores) == ("pqrstu", (6.0,))
    assert first.reasons == second.reasons == {}


def test_what_fails_is_none_with_its_reason() -> None:
    (result,) = score_conversations(encoder(), [group("p", "no", "abc", "a", "abcd")], lengths)
    assert result.scores == (None, None, 2.0, None)
    assert result.num_tokens == (0, 4, 2, 5)
    assert {index: (drop.reason, drop.detail) for index, drop in result.reasons.items()} == {
        0: ("template_error", "not this"),
        1: ("vllm_error", "of 4"),
        3: ("non_finite_score", "the reward model gave nan"),
    }


def test_equal_conversations_are_computed_once() -> None:
    asked: list[Sequence[Encoded]] = []

    def count(items: Sequence[Encoded]) -> list[float | Drop]:
        asked.append(items)
        return [float(number) for number, _ in enumerate(items)]

    results = score_conversations(
        encoder(), [group("p", "a", "b", "a"), group("q", "a"), group("p", "b")], count
    )
    (items,) = asked
    assert len(items) == len(set(items)) == 3
    assert [result.scores for result in results] == [(0.0, 1.0, 0.0), (2.0,), (1.0,)]


def test_nothing_to_compute_asks_for_nothing() -> None:
    def never(items: Sequence[Encoded]) -> list[float | Drop]:
        raise AssertionError("it was asked")

    assert score_conversations(encoder(), [], never) == []
    (result,) = score_conversations(encoder(), [group("p", "no")], never)
    assert result.scores == (None,)


def test_a_cut_conversation_says_so() -> None:
    (result,) = score_conversations(encoder(3), [group("p", "a", "abcdefgh")], lengths)
    assert (result.num_tokens, result.truncated) == ((2, 3), (False, True))
