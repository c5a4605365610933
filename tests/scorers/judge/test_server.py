"""What goes over the wire, and what becomes of a server's faults."""

from __future__ import annotations

from typing import Any

import pytest
from support.judges import ChatServer, chats, group, judge_of
from support.servers import Answer, Asked, FakeServer

from bon.errors import ModelError, ServerError
from bon.protocols import retries_of
from bon.records import Scores
from bon.scorers.judge.model import Asking
from bon.scorers.judge.server import ServerJudge
from bon.serving.models import ServedModel

OPENAI = "https://api.openai.com"


def score(chat: ChatServer, options: str = "?mode=rubric", *responses: str) -> Scores:
    with FakeServer(chat) as server, judge_of(f"judge:server:{server.url}{options}") as judge:
        (result,) = judge.score([group(*(responses or ("r",)))])
        return result


def bodies(chat: ChatServer, options: str) -> list[Any]:
    with FakeServer(chat) as server, judge_of(f"judge:server:{server.url}{options}") as judge:
        judge.score([group("r")])
        return [one.body for one in chats(server)]


def test_what_is_asked_of_a_vllm_server() -> None:
    (body,) = bodies(ChatServer(lambda question: {"Yes": 0.9}), "")
    (message,) = body.pop("messages")
    assert message["role"] == "user"
    assert body == {
        "model": "the-judge",
        "temperature": 0,
        "max_tokens": 1,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
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


def test_openai_is_told_the_longest_answer_by_its_new_name() -> None:
    judge = ServerJudge(Asking(None, 9, False), ServedModel("o", ""), (OPENAI,), 1, 1.0, 1.0)
    body = judge._body("q")
    assert body["max_completion_tokens"] == 9
    assert "max_tokens" not in body


@pytest.mark.parametrize("options", ["", "?mode=rubric", "?mode=pairwise"])
def test_a_server_that_refuses_whatever_is_asked_ends_the_run(options: str) -> None:
    def refuse(asked: Asked) -> Answer | None:
        why = "'max_tokens' is not supported with this model"
        is_named = asked.number and "max_tokens" in asked.body
        return Answer({"error": {"message": why}}, status=400) if is_named else None

    with pytest.raises(ServerError, match="refuses the judge's questions") as caught:
        score(ChatServer(lambda question: "", fault=refuse), options, "a", "b")
    assert "is not supported with this model" in caught.value.why


def test_the_first_question_may_be_refused_for_its_own_sake() -> None:
    def refuse(asked: Asked) -> Answer | None:
        is_long = bool(asked.number) and "long" in asked.body["messages"][0]["content"]
        return Answer({"message": "too long"}, status=400) if is_long else None

    chat = ChatServer(lambda question: "Score: 3", fault=refuse)
    assert score(chat, "?mode=rubric", "long", "long 2").scores == (None, None)
    assert chat.questions == ["Say Yes."]


def one_token(*words: str) -> Any:
    return lambda text: 1 if text in words else 2


def test_words_that_are_no_tokens_of_the_server_end_the_run_before_any_question() -> None:
    chat = ChatServer(lambda question: {"Yes": 0.9}, num_tokens=one_token("Yes"))
    with pytest.raises(ModelError, match="'No' is not one token"):
        score(chat, "")
    assert chat.questions == []
    chat = ChatServer(lambda question: {"Yes": 0.9}, num_tokens=one_token("Yes", " No"))
    assert score(chat, "", *map(str, range(40))).scores == (1.0,) * 40


@pytest.mark.parametrize("said", [{"Yes": 0.9}, {"No": 0.9}, {"Hm": 0.9}])
def test_a_word_that_is_never_said_ends_the_run(said: dict[str, float]) -> None:
    """Where the server does not say what its tokens are, 32 answers do."""
    chat = ChatServer(lambda question: said)
    with pytest.raises(ModelError, match="not among the likeliest tokens of any of 32") as caught:
        score(chat, "", *map(str, range(40)))
    assert all((repr(word) in caught.value.what) == (word not in said) for word in ("Yes", "No"))
    assert repr(next(iter(said))) in caught.value.why


def test_a_word_that_is_said_at_all_does_not_end_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chat = ChatServer(lambda question: {"Yes": 0.9, "No": 0.1} if "ten" in question else {"Yes": 1})
    assert score(chat, "", "ten", *map(str, range(80))).scores[1:] == (1.0,) * 80
    assert capsys.readouterr().out == ""
    assert score(chat, "", "a").scores == (1.0,)
    assert "'No': not among the likeliest tokens of any of 1 answers" in capsys.readouterr().out


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
def test_a_server_that_never_says_what_it_should_ends_the_run(
    body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bon.serving.client._FIRST_WAIT_S", 0.01)

    def garbage(asked: Asked) -> Answer | None:
        return Answer(body) if asked.number else None

    with pytest.raises(ServerError):
        score(ChatServer(lambda question: "", fault=garbage), "")


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_path_ends_the_run_at_once(status: int) -> None:
    def wrong(asked: Asked) -> Answer | None:
        return Answer({}, status=status) if asked.number else None  # /tokenize as well

    chat = ChatServer(lambda question: "", fault=wrong)
    with FakeServer(chat) as server, judge_of(f"judge:server:{server.url}") as judge:
        with pytest.raises(ServerError, match=str(status)):
            judge.score([group("r")])
        assert len(chats(server)) == 1


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
