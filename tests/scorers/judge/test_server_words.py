"""What a server says of two words, and what is made of servers that say nothing."""

from __future__ import annotations

from typing import Any

import pytest
from support.servers import Answer, Asked, FakeServer

from bon.errors import ModelError
from bon.scorers.judge.server_words import check_served_words
from bon.serving.client import ServerClient
from bon.serving.models import ServedModel


def check(answer: Any, owner: str = "vllm") -> tuple[bool, list[str]]:
    """Return what is known, and the texts that were asked about."""

    def reply(asked: Asked) -> Answer:
        found = answer(asked.body["prompt"]) if callable(answer) else answer
        return found if isinstance(found, Answer) else Answer(found)

    client_of = {"concurrency": 1, "timeout_s": 5.0, "patience_s": 1.0, "api_key": None}
    with FakeServer(reply) as server, ServerClient([server.url], **client_of) as client:  # type: ignore[arg-type]
        known = check_served_words(client, ServedModel("m", owner), ("Yes", "No"))
        assert all(one.path == "/tokenize" and one.body["model"] == "m" for one in server.posts)
        assert all(one.body["add_special_tokens"] is False for one in server.posts)
        return known, [one.body["prompt"] for one in server.posts]


def tokens(*words: str) -> Any:
    return lambda text: {"tokens": [7] * (1 if text in words else 2)}


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
def test_words_that_are_tokens(owner: str) -> None:
    assert check(tokens("Yes", "No"), owner) == (True, ["Yes", "No"])
    assert check(tokens("Yes", " No"), owner) == (True, ["Yes", "No", " No"])


def test_a_word_that_is_none() -> None:
    with pytest.raises(ModelError, match="'No' is not one token") as caught:
        check(tokens("Yes"))
    assert "words=" in caught.value.next_step
    with pytest.raises(ModelError, match="'Yes' is not one token"):
        check({"tokens": []})


@pytest.mark.parametrize(
    "answer",
    [
        *[Answer({}, status=status) for status in (400, 401, 403, 404, 405)],
        *[{}, [], {"tokens": None}, {"count": 1}],
    ],
)
def test_a_server_that_does_not_say(answer: Any) -> None:
    assert check(answer) == (False, ["Yes"])


@pytest.mark.parametrize("owner", ["", "openai", "llamacpp"])
def test_a_server_that_cannot_say_is_not_asked(owner: str) -> None:
    assert check(tokens(), owner) == (False, [])
