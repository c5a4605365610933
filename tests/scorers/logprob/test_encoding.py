"""Which tokens are read where, and why some responses have none; ids are those of bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_causal import END, candidate, group, templated
from support.tiny_models import CHATML, tokenizer

from bon.chat import ChatTemplate
from bon.records import Candidate, CandidateGroup, Drop
from bon.scorers.encoding import Encoded
from bon.scorers.logprob.encoding import ResponseEncoder, end_token

USER = {"role": "user", "content": "hi"}
TOKENS = tokenizer()
CHAT = ChatTemplate(TOKENS, None, "reference model", "--flag")
PROMPT = templated(TOKENS, [USER])
ENCODER = ResponseEncoder(CHAT, END, 0, max_length=64, vocab_size=230)


def encode(one: Candidate, encoder: ResponseEncoder = ENCODER, **generation: Any) -> Encoded | Drop:
    (found,) = encoder.encode(group("p", (USER,), (one,), **generation))
    return found


def reason(one: Candidate, encoder: ResponseEncoder = ENCODER, **generation: Any) -> str:
    found = encode(one, encoder, **generation)
    assert isinstance(found, Drop)
    assert found.detail
    return found.reason


@given(st.lists(st.integers(0, 229), min_size=1, max_size=64 - len(PROMPT)))
def test_every_sampled_token_is_read_behind_what_comes_before_it(ids: list[int]) -> None:
    found = encode(candidate(0, ids, "whatever"))
    assert isinstance(found, Encoded)
    whole = [*PROMPT, *ids]
    assert found.targets == tuple(ids)
    assert [whole[position + 1] for position in found.reads] == ids
    assert [*found.tokens, ids[-1]] == whole
    assert found.num_tokens == len(whole)
    assert not found.truncated


def test_the_context_is_for_both_and_nothing_is_cut() -> None:
    room = ENCODER.max_length - len(PROMPT)
    assert isinstance(encode(candidate(0, [7] * room, "")), Encoded)
    assert reason(candidate(0, [7] * (room + 1), "")) == "too_long"


def test_what_cannot_be_read_has_a_reason() -> None:
    assert reason(candidate(0, [7, 230], "")) == "unknown_token"
    assert reason(candidate(0, [], "")) == "no_tokens"
    assert reason(candidate(0, None, "")) == "no_tokens"
    few = replace(ENCODER, vocab_size=max(PROMPT))
    assert reason(candidate(0, [7], ""), few) == "unknown_token"
    system = {"role": "system", "content": "x"}
    two = group("p", (system, USER), (candidate(0, [7], ""), candidate(1, [8], "")), raw=True)
    assert [one.reason for one in ENCODER.encode(two) if isinstance(one, Drop)] == ["not_raw"] * 2
    blank = group("p", ({"role": "user", "content": ""},), (candidate(0, [7], ""),), raw=True)
    (found,) = ENCODER.encode(blank)
    assert isinstance(found, Drop)
    assert found.reason == "empty_prompt"


def test_a_template_that_raises_is_the_prompts_fault() -> None:
    picky = replace(CHAT, override="{{ raise_exception('no users') }}")
    found = encode(candidate(0, [7], ""), replace(ENCODER, chat=picky))
    assert isinstance(found, Drop)
    assert (found.reason, found.detail) == ("template_error", "no users")


@pytest.mark.parametrize(
    ("changes", "generation", "wanted"),
    [
        ({}, {}, "ab"),
        ({"finish_reason": None}, {}, "ab"),
        ({"finish_reason": "stop"}, {}, "ab+end"),
        ({"finish_reason": "stop", "num_tokens": 3}, {}, "ab+end"),
        ({"finish_reason": "stop", "num_tokens": 3}, {"raw": True}, "ab+raw end"),
        ({"finish_reason": "length", "num_tokens": 2}, {"stop": ["c"]}, "ab"),
        ({"finish_reason": "stop", "num_tokens": 2}, {}, "other_tokens"),
        ({"num_tokens": 3}, {}, "other_tokens"),
        ({"finish_reason": "stop"}, {"stop": ["c"]}, "other_tokens"),
    ],
)
def test_text_is_tokenised_where_nobody_knows_the_tokens(
    changes: dict[str, Any], generation: dict[str, Any], wanted: str
) -> None:
    found = encode(candidate(0, None, "ab", **changes), **generation)
    text = tuple(TOKENS.encode("ab"))
    targets = {"ab": text, "ab+end": (*text, END), "ab+raw end": (*text, 0)}
    if wanted in targets:
        assert isinstance(found, Encoded)
        assert found.targets == targets[wanted]
    else:
        assert isinstance(found, Drop)
        assert found.reason == wanted


def test_an_empty_text_that_was_stopped_is_its_end_token() -> None:
    found = encode(candidate(0, None, "", finish_reason="stop"))
    assert isinstance(found, Encoded)
    assert found.targets == (END,)
    assert found.tokens == tuple(PROMPT)


def test_responses_that_were_given_are_their_text() -> None:
    both = ENCODER.encode(CandidateGroup("p", (USER,), ("ab", "")))
    assert isinstance(both[0], Encoded)
    assert both[0].targets == tuple(TOKENS.encode("ab"))
    assert isinstance(both[1], Drop)


@pytest.mark.parametrize(
    ("template", "ends", "wanted"),
    [
        (CHATML, (0, END), END),
        (CHATML.replace("<|im_end|>", "<|pad|>"), (0, END), 0),
        (CHATML.replace("<|im_end|>", ""), (0, END), END),
        (CHATML, (), END),
        ("{{ raise_exception('not so') }}", (0, END), END),
    ],
)
def test_a_response_ends_as_the_template_ends_it(
    template: str, ends: tuple[int, ...], wanted: int
) -> None:
    assert end_token(replace(CHAT, override=template), ends) == wanted
