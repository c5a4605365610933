"""Generators behind a server of OpenAI's contract that has its own ways."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from support.openai_server import OpenAI, logprobs_of, response_of
from support.servers import FakeServer

from bon.cli.plans.server_generator import server_plan
from bon.config import GenerateSettings
from bon.errors import ServerError, SettingsError
from bon.generators.server.choices import read_answer
from bon.records import GenerationRequest, GenerationResult

N, SEED = 4, 50


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def request(number: int, text: str = "", n: int = N) -> GenerationRequest:
    messages: Any = tuple(user(text or f"question {number}"))
    return GenerationRequest(f"p{number}", messages, n, SEED * (number + 1))


def sample(
    server: FakeServer, *requests: GenerationRequest, options: str = "", **settings: Any
) -> dict[str, GenerationResult]:
    values = {"model": f"server:{server.url}{options}", "num_candidates": N, **settings}
    with server_plan(GenerateSettings(**values)).generator as generator:
        return {one.prompt_id: one for one in generator.stream(iter(requests))}


def responses(result: GenerationResult) -> list[str]:
    assert result.drop is None, result.drop
    assert [one.candidate for one in result.candidates] == list(range(len(result.candidates)))
    return [one.response for one in result.candidates]


def wanted(number: int, n: int = N) -> list[str]:
    text = json.dumps(user(f"question {number}"))
    return [response_of(text, SEED * (number + 1) + place) for place in range(n)]


def drop_of(result: GenerationResult) -> tuple[str, str]:
    assert result.candidates == ()
    assert result.drop is not None
    return result.drop.reason, result.drop.detail


def test_all_choices_of_a_prompt_come_from_one_request() -> None:
    with FakeServer(OpenAI()) as server:
        found = sample(server, *(request(number) for number in range(5)))
    assert len(server.posts) == 5
    for number in range(5):
        result = found[f"p{number}"]
        assert responses(result) == wanted(number)
        assert result.num_prompt_tokens == len(json.dumps(user(f"question {number}")))
        for place, candidate in enumerate(result.candidates):
            logprobs = logprobs_of(candidate.response)
            assert candidate.seed == SEED * (number + 1) + place
            assert candidate.logprob == pytest.approx(sum(logprobs))
            assert candidate.num_tokens == len(logprobs)
            assert candidate.finish_reason == "stop"


def test_what_is_asked_is_what_the_settings_say() -> None:
    settings = {
        "temperature": 0.7, "top_p": 0.9, "max_tokens": 33, "stop": ("A", "B"),
        "system_prompt": "be brief",
    }  # fmt: skip
    with FakeServer(OpenAI()) as server:
        sample(server, request(0), **settings)
    assert server.posts[0].path == "/v1/chat/completions"
    assert server.posts[0].body == {
        "model": "tiny", "n": N, "seed": SEED, "temperature": 0.7, "top_p": 0.9, "max_tokens": 33,
        "stop": ["A", "B"], "logprobs": True, "top_logprobs": 0,
        "messages": [{"role": "system", "content": "be brief"}, *user("question 0")],
    }  # fmt: skip


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp"])
def test_servers_that_can_truncate_are_told_all_of_it(owner: str) -> None:
    with FakeServer(OpenAI(owner=owner)) as server:
        sample(server, request(0))
        sample(server, request(0), top_k=5, min_p=0.1)
    said = [{key: post.body[key] for key in ("top_k", "min_p")} for post in server.posts]
    assert said == [{"top_k": -1, "min_p": 0.0}, {"top_k": 5, "min_p": 0.1}]
    assert ("return_token_ids" in server.posts[0].body) == (owner == "vllm")


def test_llamacpp_gives_logprobs_where_others_are_asked_for() -> None:
    with FakeServer(OpenAI(owner="llamacpp")) as server:
        result = sample(server, request(0))["p0"]
    for candidate in result.candidates:
        assert candidate.logprob == pytest.approx(sum(logprobs_of(candidate.response)))


def test_raw_prompts_are_completions() -> None:
    two = GenerationRequest(
        "p1", ({"role": "system", "content": "s"}, request(1).messages[0]), 1, 0
    )
    with FakeServer(OpenAI()) as server:
        found = sample(server, request(0), two, raw=True)
    assert {post.path for post in server.posts} == {"/v1/completions"}
    assert server.posts[0].body["prompt"] == "question 0"
    assert responses(found["p0"]) == [response_of("question 0", SEED + n) for n in range(N)]
    first = found["p0"].candidates[0]
    assert first.logprob == pytest.approx(sum(logprobs_of(first.response)))
    assert drop_of(found["p1"])[0] == "not_raw"


def test_prompts_that_cannot_be_sent_are_answered_as_they_come() -> None:
    pulled = 0

    def prompts() -> Iterator[GenerationRequest]:
        nonlocal pulled
        for number in range(1000):
            pulled += 1
            yield request(number, n=1) if number == 3 else GenerationRequest("none", (), 1, 0)

    with FakeServer(OpenAI()) as server:
        settings = GenerateSettings(model=f"server:{server.url}", raw=True, num_candidates=1)
        with server_plan(settings).generator as generator:
            stream = generator.stream(prompts())
            for number in range(3):
                assert drop_of(next(stream))[0] == "not_raw"
                assert pulled == number + 1
            rest = list(stream)
    assert sum(one.drop is None for one in rest) == 1
    assert len(rest) == pulled - 3 == 997


@pytest.mark.parametrize("most", [1, 3])
def test_a_server_that_gives_fewer_is_asked_for_the_rest(most: int) -> None:
    with FakeServer(OpenAI(most_choices=most)) as server:
        found = sample(server, *(request(number) for number in range(40)))
        late = len(server.posts)
    assert [responses(found[f"p{number}"]) for number in range(40)] == [
        wanted(number) for number in range(40)
    ]
    assert late == 40 * math.ceil(N / most)
    # once that is known, no more is asked for at once
    assert {post.body["n"] for post in server.posts[-4:]} <= set(range(1, most + 1))


def test_a_server_that_refuses_several_is_asked_one_by_one() -> None:
    with FakeServer(OpenAI(refuses_several=True)) as server:
        found = sample(
            server, request(0), request(1, "refuse me"), request(2), options="?concurrency=1"
        )
    assert responses(found["p0"]) == wanted(0)
    assert responses(found["p2"]) == wanted(2)
    reason, detail = drop_of(found["p1"])
    assert reason == "server_refused"
    assert "cannot do" in detail
    assert [post.body["n"] for post in server.posts[:3]] == [N, 1, N // 2]
    assert {post.body["n"] for post in server.posts[3:]} == {1}


@pytest.mark.parametrize(
    ("limit", "n", "concurrency"),
    [(16, 130, 1), (16, 130, 32), (16, 100, 1), (64, 130, 32), (1, 9, 32), (3, 4, 1)],
)
def test_a_server_that_refuses_many_is_asked_for_as_many_as_it_gives(
    limit: int, n: int, concurrency: int
) -> None:
    with FakeServer(OpenAI(limit_of_choices=limit)) as server:
        asked = [request(number, n=n) for number in range(6)]
        asked.insert(1, request(9, "refuse me", n=n))
        found = sample(server, *asked, options=f"?concurrency={concurrency}", num_candidates=n)
    assert drop_of(found["p9"])[0] == "server_refused"
    for number in range(6):
        assert responses(found[f"p{number}"]) == wanted(number, n)
    if concurrency == 1:  # halved until it fits: no more than half of what it would give is lost
        found_out = {post.body["n"] for post in server.posts[-math.ceil(n / limit) :]}
        assert found_out <= set(range(1, limit + 1))
        assert max(found_out) > limit // 2


def test_a_refused_prompt_costs_only_itself_and_is_asked_once_more_at_most() -> None:
    with FakeServer(OpenAI()) as server:
        found = sample(
            server, request(0), request(1, "refuse me"), request(2), options="?concurrency=1"
        )
    assert drop_of(found["p1"])[0] == "server_refused"
    assert len(server.posts) == 3
    with FakeServer(OpenAI()) as server:
        found = sample(server, request(1, "refuse me"), request(0), options="?concurrency=1")
    assert drop_of(found["p1"])[0] == "server_refused"
    assert [post.body["n"] for post in server.posts] == [N, 1, N]
    assert responses(found["p0"]) == wanted(0)


def test_without_logprobs_the_count_is_that_of_the_usage() -> None:
    with FakeServer(OpenAI(has_logprobs=False)) as server:
        many = sample(server, request(0))["p0"].candidates
        one = sample(server, request(0, n=1))["p0"].candidates
    assert {(c.logprob, c.num_tokens) for c in many} == {(None, None)}  # of all of them together
    assert (one[0].logprob, one[0].num_tokens) == (None, len(logprobs_of(one[0].response)))


def test_without_usage_nothing_is_lost_but_the_counts() -> None:
    with FakeServer(OpenAI(has_usage=False, has_logprobs=False)) as server:
        result = sample(server, request(0))["p0"]
    assert responses(result) == wanted(0)
    assert result.num_prompt_tokens == 0


def test_logprobs_are_asked_for_as_the_option_says() -> None:
    with FakeServer(OpenAI()) as server:
        sample(server, request(0), options="?logprobs=false")
    assert "logprobs" not in server.posts[0].body


@pytest.mark.parametrize(
    ("changes", "response", "finish_reason"),
    [
        ({"message": {"content": None}, "finish_reason": "length"}, "", "length"),
        ({"message": {"content": None, "refusal": "I cannot"}}, "I cannot", "stop"),
        ({"finish_reason": "eos"}, None, "stop"),
        ({"finish_reason": "max_tokens"}, None, "length"),
        ({"finish_reason": "content_filter"}, None, "content_filter"),
        ({"finish_reason": None}, None, None),
    ],
)
def test_odd_choices(changes: Any, response: str | None, finish_reason: str | None) -> None:
    with FakeServer(OpenAI(changes=changes)) as server:
        result = sample(server, request(0))["p0"]
    assert {one.finish_reason for one in result.candidates} == {finish_reason}
    assert responses(result) == (wanted(0) if response is None else [response] * N)


@pytest.mark.parametrize(
    ("habit", "reason"),
    [
        ({"changes": {"message": {"content": None, "tool_calls": [{"id": "1"}]}}}, "tool_calls"),
        ({"answer": {"choices": []}}, "no_choices"),
    ],
)
def test_answers_without_a_response_are_drops(habit: Any, reason: str) -> None:
    with FakeServer(OpenAI(**habit)) as server:
        assert drop_of(sample(server, request(0))["p0"])[0] == reason


@pytest.mark.parametrize(
    "body",
    [
        *(None, [], 3, {}, {"choices": None}, {"choices": [3]}, {"choices": [{}]}),
        *({"choices": [{"message": None}]}, {"choices": [{"message": {"content": 7}}]}),
        {"choices": [{"text": "x", "logprobs": {"content": [{}]}}]},
        {"choices": [{"text": "x", "finish_reason": {}}]},
        {"choices": [{"text": "x", "index": "a"}, {"text": "y", "index": 1}]},
    ],
)
def test_what_is_no_completion_is_told_apart(body: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        read_answer(body)


def test_a_busy_server_is_asked_again_and_that_is_counted() -> None:
    with FakeServer(OpenAI(busy_every=3)) as server:
        values = GenerateSettings(model=f"server:{server.url}", num_candidates=N)
        with server_plan(values).generator as generator:
            found = {
                one.prompt_id: one
                for one in generator.stream(request(number) for number in range(12))
            }
            retries = dict(generator.retries)  # type: ignore[attr-defined]
    assert [responses(found[f"p{number}"]) for number in range(12)] == [
        wanted(number) for number in range(12)
    ]
    assert retries == {"429": len(server.posts) - 12}
    assert retries["429"] > 3


def test_greedy_is_asked_for_once() -> None:
    with FakeServer(OpenAI()) as server:
        result = sample(server, request(0), temperature=0.0)["p0"]
    assert [post.body["n"] for post in server.posts] == [1]
    assert responses(result) == wanted(0, n=1) * N
    assert [one.seed for one in result.candidates] == [SEED + place for place in range(N)]


def test_many_candidates_are_asked_for_in_pieces() -> None:
    with FakeServer(OpenAI()) as server:
        result = sample(server, request(0, n=300))["p0"]
    assert sorted(post.body["n"] for post in server.posts) == [44, 128, 128]
    assert responses(result) == wanted(0, n=300)


def test_seeds_are_as_large_as_a_server_takes() -> None:
    large = GenerationRequest("p0", request(0).messages, 1, 2**47 + 5)
    with FakeServer(OpenAI(owner="llamacpp")) as server:
        (candidate,) = sample(server, large)["p0"].candidates
    assert server.posts[0].body["seed"] == 5
    assert candidate.seed == 2**47 + 5
    with FakeServer(OpenAI(owner="vllm")) as server:
        sample(server, large)
    assert server.posts[0].body["seed"] == 2**47 + 5


def test_prompts_are_pulled_no_further_than_the_server_is_asked() -> None:
    pulled = 0

    def counted() -> Iterator[GenerationRequest]:
        nonlocal pulled
        for number in range(100):
            pulled += 1
            yield request(number)

    with FakeServer(OpenAI()) as server:
        values = GenerateSettings(model=f"server:{server.url}?concurrency=3", num_candidates=N)
        with server_plan(values).generator as generator:
            stream = generator.stream(counted())
            assert pulled == 0
            next(stream)
            assert pulled <= 4
            stream.close()
    assert server.most_in_flight <= 3


def plan(server: FakeServer, options: str = "", **settings: Any) -> dict[str, Any]:
    return server_plan(
        GenerateSettings(model=f"server:{server.url}{options}", **settings)
    ).fingerprint


def test_the_fingerprint_holds_the_model_and_not_where_it_is() -> None:
    with FakeServer(OpenAI()) as one, FakeServer(OpenAI()) as other:
        assert plan(one) == plan(other) == plan(one, f",{other.url}?concurrency=7&timeout_s=9")
        assert one.url not in json.dumps(plan(one))
        assert plan(one)["model"] == "server:tiny"
        assert plan(one) != plan(one, "?logprobs=false")
    with FakeServer(OpenAI(models=("/models/here/tiny",))) as server:
        assert plan(server)["model"] == "server:tiny"


def test_one_of_several_models_has_to_be_named() -> None:
    with FakeServer(OpenAI(models=("a", "b"))) as server:
        with pytest.raises(ServerError, match="several models") as caught:
            plan(server)
        assert "a, b" in caught.value.why
        assert "?model=" in caught.value.next_step
        with pytest.raises(ServerError, match="no model 'c'"):
            plan(server, "?model=c")
        assert plan(server, "?model=b")["model"] == "server:b"
        other = FakeServer(OpenAI(models=("b",), owner="vllm"))
        with other, pytest.raises(ServerError, match="not the same"):
            plan(server, f",{other.url}?model=b")


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"lora": "x"}, "--lora"),
        ({"dtype": "bfloat16"}, "--dtype"),
        ({"generator_engine": "vllm"}, "--generator-engine"),
        ({"engine_args": {"a": 1}}, "--engine-args"),
        ({"top_k": 5}, "--top-k"),
        ({"min_p": 0.1}, "--min-p"),
    ],
)
def test_settings_that_a_server_does_not_read_are_refused(settings: Any, flag: str) -> None:
    with FakeServer(OpenAI()) as server, pytest.raises(SettingsError, match=flag):
        plan(server, **settings)
    assert not server.posts


@pytest.mark.parametrize("spec", ["server:", "server:x", "server:http://h?modle=x"])
def test_a_spec_that_cannot_be_is_refused(spec: str) -> None:
    with pytest.raises(SettingsError):
        server_plan(GenerateSettings(model=spec))


@pytest.mark.parametrize("rest", ["", "/?foo=1", "/?foo", "?timeout_s=x", "?a=1&a=1", ":port"])
@pytest.mark.parametrize("user_info", ["bob:hunter2", "hunter2", "bob:hunter2?x"])
def test_a_password_in_a_url_is_never_shown(user_info: str, rest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        server_plan(GenerateSettings(model=f"server:http://{user_info}@127.0.0.1:9{rest}"))
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_not_there_is_a_plain_error() -> None:
    with FakeServer(OpenAI()) as server:
        url = server.url
    with pytest.raises(ServerError, match="not reached") as caught:
        server_plan(GenerateSettings(model=f"server:{url}?patience_s=0.1"))
    assert caught.value.where == url
