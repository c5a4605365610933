"""Which tokens a response follows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.tiny_causal import templated
from support.tiny_models import tokenizer

from bon.chat import ChatTemplate, prompt_tokens
from bon.records import Drop, Message

pytest.importorskip("transformers")

USER: Message = {"role": "user", "content": "hi"}
SYSTEM: Message = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ((USER,), [SYSTEM, USER]),
        ((SYSTEM, USER), [SYSTEM, USER]),
        (({**SYSTEM, "role": "developer"}, USER), [{**SYSTEM, "role": "developer"}, USER]),
        ((), [SYSTEM]),
    ],
)
def test_a_system_prompt_goes_before_messages_that_have_none(
    messages: tuple[Message, ...], wanted: list[Message]
) -> None:
    chat = ChatTemplate(tokenizer(), None, "generator", "--chat-template")
    assert prompt_tokens(chat, messages, system_prompt="Be brief.") == templated(
        tokenizer(), wanted
    )
    if messages:
        assert prompt_tokens(chat, messages) == templated(tokenizer(), messages)


def test_raw_prompts_are_tokenised_as_they_are() -> None:
    chat = ChatTemplate(tokenizer(bos=True), None, "generator", "--chat-template")
    text = list(tokenizer().encode("hi"))
    assert prompt_tokens(chat, (USER,), raw=True) == [3, *text]
    assert prompt_tokens(chat, (USER, USER), raw=True) == Drop(
        "not_raw", "--raw takes one message, not 2"
    )


def test_a_template_that_raises_is_the_prompts_fault() -> None:
    chat = ChatTemplate(tokenizer(), None, "generator", "--chat-template")
    picky = replace(chat, override="{{ raise_exception('no users') }}")
    assert prompt_tokens(picky, (USER,)) == Drop("template_error", "no users")
