"""What goes over the wire, and what becomes of a server's faults."""

from __future__ import annotations

from typing import Any

import pytest
from support.judges import ChatServer, group, judge_of
from support.servers import Answer, Asked, FakeServer

from bon.errors import ServerError
from bon.protocols import retries_of
from bon.records import Scores


def score(chat: ChatServer, options: str = "?mode=rubric", *responses: str) -> Scores:
    with FakeServer(chat) as server, judge_of(f"judge:server:{server.url}{options}") as judge:
        (result,) = judge.score([group(*(responses or ("r",)))])
        return result


def bodies(chat: ChatServer, options: str) -> list[Any]:
    with FakeServer(chat) as server, judge_of(f"judge:server:{server.url}{options}") as judge:
        judge.score([group("r")])
        return [one.body for one in server.posts]


def test_what_is_asked_of_a_vllm_server() -> None:
    (body,) = bodies(ChatServer(lambda question: {"Yes": 0.9}), "")
    (message,) = body.pop("messages")
    assert message["role"] == "user"
    assert body == {
        "model": "the-judge",
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
        "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
    }


def test_a_rubric_asks_for_text_and_may_think() -> None:
    chat = ChatServer(lambda question: "Score: 3")
    (body,) = bodies(chat, "?mode=rubric&max_tokens=77&thinking=true")
    assert body["max_tokens"] == 77
    assert body["chat_template_kwargs"]["enable_thinking"] is True
    assert "logprobs" not in body


def test_a_server_of_unknown_make_gets_nothing_that_openai_has_not() -> None:
    chat = ChatServer(lambda question: "Score: 3", owned_by="system")
    (body,) = bodies(chat, "?mode=rubric")
    assert set(body) == {"model", "messages", "temperature", "max_tokens"}


def test_a_busy_server_is_asked_again_and_that_is_counted() -> None:
    def busy(asked: Asked) -> Answer | None:
        is_third = asked.number and asked.number % 3 == 0
        return Answer({}, status=429, headers={"Retry-After": "0"}) if is_third else None

    responses = [str(number) for number in range(20)]
    chat = ChatServer(lambda question: "Score: 3", fault=busy)
    url = "?mode=rubric"
    with FakeServer(chat) as server, judge_of(f"judge:server:{server.url}{url}") as judge:
        (result,) = judge.score([group(*responses)])
        assert retries_of(judge) == {"429": len(server.posts) - 20}
    assert result.scores == (3.0,) * 20


def test_a_question_that_the_server_refuses_is_null_and_others_are_not() -> None:
    def refuse(asked: Asked) -> Answer | None:
        is_long = bool(asked.number) and "long" in asked.body["messages"][0]["content"]
        return Answer({"message": "maximum context length is 8"}, status=400) if is_long else None

    result = score(
        ChatServer(lambda question: "Score: 3", fault=refuse), "?mode=rubric", "a", "long", "b"
    )
    assert result.scores == (3.0, None, 3.0)
    assert result.reasons[1].reason == "server_refused"
    assert "maximum context length" in result.reasons[1].detail


def test_a_rubric_that_was_cut_has_no_score() -> None:
    def cut(asked: Asked) -> Answer | None:
        message = {"role": "assistant", "content": "Very good.\nScore: 1"}
        choice = {"index": 0, "finish_reason": "length", "message": message}
        return Answer({"choices": [choice]}) if asked.number else None

    result = score(ChatServer(lambda question: "", fault=cut))
    assert result.scores == (None,)
    assert result.reasons[0].reason == "judge_unparseable"
    assert "cut at max_tokens" in result.reasons[0].detail
    assert "Very good." in result.reasons[0].detail


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        [],
        {"choices": []},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": 7}}]},
        {"choices": [{"message": {"content": "Yes"}, "logprobs": None}]},
        {"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{}]}}]},
        {"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": []}}], "usage": 3},
    ],
)
def test_a_server_that_never_says_what_it_should_ends_the_run(body: Any) -> None:
    def garbage(asked: Asked) -> Answer | None:
        return Answer(body) if asked.number else None

    with pytest.raises(ServerError):
        score(ChatServer(lambda question: "", fault=garbage), "")


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_path_ends_the_run_at_once(status: int) -> None:
    def wrong(asked: Asked) -> Answer | None:
        return Answer({}, status=status) if asked.number else None

    chat = ChatServer(lambda question: "", fault=wrong)
    with FakeServer(chat) as server, judge_of(f"judge:server:{server.url}") as judge:
        with pytest.raises(ServerError, match=str(status)):
            judge.score([group("r")])
        assert len(server.posts) == 1


def test_two_servers_share_the_questions() -> None:
    chat = ChatServer(lambda question: "Score: 3")
    with FakeServer(chat) as one, FakeServer(chat) as other:
        spec = f"judge:server:{one.url},{other.url}?mode=rubric"
        with judge_of(spec, server_concurrency=2) as judge:
            (result,) = judge.score([group(*map(str, range(40)))])
        assert result.scores == (3.0,) * 40
        assert len(one.posts) + len(other.posts) == 40
        assert min(len(one.posts), len(other.posts)) > 0
        assert max(one.most_in_flight, other.most_in_flight) <= 2
