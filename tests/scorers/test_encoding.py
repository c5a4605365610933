"""From a conversation to token ids: the template's, once, cut at the right end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from support.tiny_models import BOS_CHATML, CHATML, SPECIALS, tokenizer

from bon.chat import ChatTemplate
from bon.errors import ModelError
from bon.records import CandidateGroup, Drop, Message
from bon.scorers.encoding import ConversationEncoder, Encoded

USER: tuple[Message, ...] = ({"role": "user", "content": "hi"},)
BOS = SPECIALS.index("<|bos|>")
START, END = SPECIALS.index("<|im_start|>"), SPECIALS.index("<|im_end|>")


def encoder(tokens: Any, template: str | None = None, **changes: Any) -> ConversationEncoder:
    chat = ChatTemplate(tokens, template, "reward model", "--reward-template")
    settings = {"max_length": 2048, "truncation_side": "left", "vocab_size": 264} | changes
    return ConversationEncoder(chat, **settings)


def encode(adapter: ConversationEncoder, messages: Any, *responses: str) -> list[Any]:
    return adapter.encode(CandidateGroup("p", messages, responses))


def by_hand(tokens: Any, text: str) -> tuple[int, ...]:
    """Ids of a text that may hold special tokens, with nothing put around it."""
    return tuple(tokens.encode(text, add_special_tokens=False))


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def test_the_ids_are_those_of_the_templated_conversation() -> None:
    tokens = tokenizer()
    messages: tuple[Message, ...] = (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "naïve 你好 🙂"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": ""},
    )
    (result,) = encode(encoder(tokens), messages, "fine\n\n")
    text = "".join(turn(message["role"], message["content"]) for message in messages)
    ids = by_hand(tokens, text + turn("assistant", "fine\n\n"))
    assert result == Encoded(ids, False, (len(ids) - 1,))


def test_no_generation_prompt_follows_the_response() -> None:
    (result,) = encode(encoder(tokenizer()), USER, "yes")
    assert result.tokens.count(START) == 2
    assert result.tokens[-2] == END


def test_an_empty_response_is_still_a_turn() -> None:
    tokens = tokenizer()
    (result,) = encode(encoder(tokens), USER, "")
    assert result.tokens == by_hand(tokens, turn("user", "hi") + turn("assistant", ""))


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_bos_in_the_template_comes_once(adds_bos: bool) -> None:
    tokens = tokenizer(template=BOS_CHATML, bos=adds_bos)
    assert (tokens("x")["input_ids"][0] == BOS) is adds_bos
    (result,) = encode(encoder(tokens), USER, "yes")
    assert result.tokens[0] == BOS
    assert result.tokens.count(BOS) == 1


def test_a_tokenizer_that_adds_bos_adds_none_to_a_template_without_it() -> None:
    (result,) = encode(encoder(tokenizer(bos=True)), USER, "yes")
    assert BOS not in result.tokens


def test_a_given_template_takes_the_place_of_the_tokenizers_own() -> None:
    tokens = tokenizer()
    template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    (result,) = encode(encoder(tokens, template), USER, "yes")
    assert result.tokens == by_hand(tokens, "[hi][yes]")


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_longer_conversation_loses_the_end_that_was_said(side: str) -> None:
    tokens = tokenizer()
    (whole,) = encode(encoder(tokens), USER, "abcdefgh")
    length = len(whole.tokens)
    for max_length in (1, 7, length - 1):
        (cut,) = encode(
            encoder(tokens, max_length=max_length, truncation_side=side), USER, "abcdefgh"
        )
        kept = whole.tokens[-max_length:] if side == "left" else whole.tokens[:max_length]
        assert cut == Encoded(kept, True, (max_length - 1,))


def test_a_conversation_of_exactly_the_limit_is_whole() -> None:
    tokens = tokenizer()
    (whole,) = encode(encoder(tokens), USER, "abcdefgh")
    (same,) = encode(encoder(tokens, max_length=len(whole.tokens)), USER, "abcdefgh")
    assert same == whole
    assert not same.truncated


def test_each_response_is_cut_for_itself() -> None:
    results = encode(encoder(tokenizer(), max_length=50), USER, "a", "b" * 60, "c")
    assert [result.truncated for result in results] == [False, True, False]
    assert len(results[1].tokens) == 50


def test_truncation_is_not_left_to_the_tokenizer() -> None:
    tokens = tokenizer()
    tokens.model_max_length = 8
    (result,) = encode(encoder(tokens), USER, "a" * 60)
    assert len(result.tokens) > 60


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHATML + "{{ raise_exception('no system role') }}", "no system role"),
        (CHATML + "{{ messages[9]['content'] }}", "no element 9"),
        (CHATML + "{% if %}", "Expected an expression"),
        ("", "no tokens"),
    ],
)
def test_a_template_that_fails_is_a_drop_of_that_response(template: str, said: str) -> None:
    tokens = tokenizer()
    tokens.chat_template = template
    (result,) = encode(encoder(tokens), USER, "x")
    assert isinstance(result, Drop)
    assert result.reason == "template_error"
    assert said in result.detail or not template


def test_only_the_response_that_a_template_refuses_is_dropped() -> None:
    refusing = "{% if 'bad' in messages[-1]['content'] %}{{ raise_exception('bad') }}{% endif %}"
    results = encode(encoder(tokenizer(), refusing + CHATML), USER, "good", "bad", "fine")
    kinds = [type(result) for result in results]
    assert kinds == [Encoded, Drop, Encoded]
    assert results[1].detail == "bad"


def test_an_error_without_text_still_has_a_detail() -> None:
    refusing = "{{ raise_exception('') }}"
    (result,) = encode(encoder(tokenizer(), refusing), USER, "x")
    assert result.reason == "template_error"
    assert result.detail


def test_a_token_that_the_model_has_no_row_for_is_a_drop_of_that_response() -> None:
    tokens = tokenizer()
    tokens.add_tokens(["<|new|>"])
    results = encode(encoder(tokens, vocab_size=len(tokens) - 1), USER, "a", "<|new|>", "b")
    assert [type(result) for result in results] == [Encoded, Drop, Encoded]
    assert results[1].reason == "unknown_token"
    assert str(len(tokens) - 1) in results[1].detail


def test_no_template_is_refused_with_advice() -> None:
    with pytest.raises(ModelError, match="--reward-template") as caught:
        encoder(tokenizer(template=None)).chat.check("some/folder")
    assert caught.value.where == "some/folder"
    encoder(tokenizer(template=None), CHATML).chat.check("some/folder")
    encoder(tokenizer()).chat.check("some/folder")


@dataclass
class _Stepped:
    """Ten tokens 0..9, read at the places given."""

    ends: list[int]

    def stepped_tokens(self, chat: Any, messages: Any, response: str) -> Any:
        return Drop("no_steps", "empty") if not response else (list(range(10)), self.ends)


@pytest.mark.parametrize(
    ("side", "limit", "reads"),
    [
        *[(side, 10, (2, 5, 9)) for side in ("left", "right")],
        ("left", 8, (0, 3, 7)),
        ("left", 7, (2, 6)),
        ("left", 1, (0,)),
        ("right", 9, (2, 5)),
        ("right", 3, (2,)),
        ("right", 2, None),
    ],
)
def test_steps_that_are_cut_off_are_not_read(side: str, limit: int, reads: Any) -> None:
    changes = {"form": _Stepped([2, 5, 9]), "truncation_side": side, "max_length": limit}
    (result,) = encode(encoder(tokenizer(), **changes), USER, "yes")
    if reads is None:
        assert result.reason == "no_steps"
    else:
        whole = list(range(10))
        kept = whole[-limit:] if side == "left" else whole[:limit]
        assert result == Encoded(tuple(kept), limit < 10, reads)


def test_a_response_without_steps_is_a_drop_of_its_own() -> None:
    first, second = encode(encoder(tokenizer(), form=_Stepped([9])), USER, "", "yes")
    assert first == Drop("no_steps", "empty")
    assert second.reads == (9,)
