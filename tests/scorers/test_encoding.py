"""From a conversation to token ids: the template's, once, cut at the right end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from support.tiny_models import BOS_CHATML, CHATML, SPECIALS, tokenizer

from bon.chat import ChatTemplate
from bon.errors import ModelError
from bon.records import CandidateGroup, Drop, Message
from bon.scorers.encoding import ConversationEncoder, Encoded, WholeConversation

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


@pytest.mark.parametrize("name", ["bos_token", "cls_token"])
def test_the_first_token_stays_where_the_left_is_cut(name: str) -> None:
    tokens = tokenizer(template=BOS_CHATML)
    setattr(tokens, name, "<|bos|>")
    (whole,) = encode(encoder(tokens), USER, "abcdefgh")
    assert whole.tokens == by_hand(
        tokens, "<|bos|>" + turn("user", "hi") + turn("assistant", "abcdefgh")
    )
    (cut,) = encode(encoder(tokens, max_length=7), USER, "abcdefgh")
    assert cut == Encoded(by_hand(tokens, "<|bos|>efgh<|im_end|>\n"), True, (6,))
    (cut,) = encode(encoder(tokens, max_length=2), USER, "abcdefgh")
    assert cut == Encoded(by_hand(tokens, "<|bos|>\n"), True, (1,))
    (cut,) = encode(encoder(tokens, max_length=1), USER, "abcdefgh")
    assert cut == Encoded(by_hand(tokens, "\n"), True, (0,))
    (same,) = encode(encoder(tokens, max_length=len(whole.tokens)), USER, "abcdefgh")
    assert same == whole


def test_a_first_token_that_is_not_the_tokenizers_own_is_cut() -> None:
    tokens = tokenizer(template=BOS_CHATML)
    (cut,) = encode(encoder(tokens, max_length=7), USER, "abcdefgh")
    assert cut.tokens == by_hand(tokens, "defgh<|im_end|>\n")


def test_the_separator_at_the_end_stays_where_the_right_is_cut() -> None:
    # what an encoder's own tokenizer does: its special tokens stay at both ends
    tokens = tokenizer(template="<|bos|>{{ messages[-1]['content'] }}<|im_end|>")
    tokens.cls_token, tokens.sep_token = "<|bos|>", "<|im_end|>"
    right = {"truncation_side": "right"}
    (cut,) = encode(encoder(tokens, max_length=5, **right), USER, "abcdefgh")
    assert cut == Encoded(by_hand(tokens, "<|bos|>abc<|im_end|>"), True, (4,))
    (cut,) = encode(encoder(tokens, max_length=5), USER, "abcdefgh")
    assert cut == Encoded(by_hand(tokens, "<|bos|>fgh<|im_end|>"), True, (4,))
    (cut,) = encode(encoder(tokens, max_length=1, **right), USER, "abcdefgh")
    assert cut.tokens == (BOS,)
    tokens.sep_token = "<|pad|>"
    (cut,) = encode(encoder(tokens, max_length=5, **right), USER, "abcdefgh")
    assert cut.tokens == by_hand(tokens, "<|bos|>abcd")


@pytest.mark.parametrize(
    ("side", "limit", "kept"),
    [
        ("left", 5, "<|bos|>gh!<|pad|>"),
        ("left", 3, "<|bos|>!<|pad|>"),
        ("left", 2, "!<|pad|>"),
        ("left", 1, "<|pad|>"),
        ("right", 5, "<|bos|>abc<|pad|>"),
    ],
)
def test_a_suffix_and_the_first_token_both_stay(side: str, limit: int, kept: str) -> None:
    template = "<|bos|>{{ messages[-1]['content'] }}!"
    tokens = tokenizer(template=template, bos=True)
    form = WholeConversation(suffix=(SPECIALS.index("<|pad|>"),))
    (cut,) = encode(
        encoder(tokens, form=form, max_length=limit, truncation_side=side), USER, "abcdefgh"
    )
    assert cut == Encoded(by_hand(tokens, kept), True, (limit - 1,))


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
    """Ten tokens, the first one given and then 101..109, read at the places given."""

    ends: list[int]
    first: int = 100

    def stepped_tokens(self, chat: Any, messages: Any, response: str) -> Any:
        return (
            Drop("no_steps", "empty")
            if not response
            else ([self.first, *range(101, 110)], self.ends)
        )


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
        whole = list(range(100, 110))
        kept = whole[-limit:] if side == "left" else whole[:limit]
        assert result == Encoded(tuple(kept), limit < 10, reads)


@pytest.mark.parametrize(
    ("limit", "kept", "reads"),
    [
        (9, (BOS, *range(102, 110)), (1, 4, 8)),
        (8, (BOS, *range(103, 110)), (3, 7)),
        (2, (BOS, 109), (1,)),
        (1, (109,), (0,)),
    ],
)
def test_steps_are_read_where_they_are_behind_a_first_token_that_stays(
    limit: int, kept: Any, reads: Any
) -> None:
    form = _Stepped([2, 5, 9], BOS)
    (result,) = encode(encoder(tokenizer(bos=True), form=form, max_length=limit), USER, "yes")
    assert result == Encoded(kept, True, reads)


def test_steps_that_the_first_token_takes_the_place_of_are_not_read() -> None:
    form = _Stepped([2], BOS)
    (result,) = encode(encoder(tokenizer(bos=True), form=form, max_length=8), USER, "yes")
    assert result.reason == "no_steps"
    (result,) = encode(encoder(tokenizer(), form=form, max_length=8), USER, "yes")
    assert result == Encoded(tuple(range(102, 110)), True, (0,))


def test_a_response_without_steps_is_a_drop_of_its_own() -> None:
    first, second = encode(encoder(tokenizer(), form=_Stepped([9])), USER, "", "yes")
    assert first == Drop("no_steps", "empty")
    assert second.reads == (9,)
