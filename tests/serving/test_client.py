"""The client against a real HTTP server that has every fault a server can have."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from support.servers import Answer, Asked, FakeServer, Reply, free_port

from bon.errors import ServerError, ServerPathError
from bon.serving.client import ServerClient, ServerReply, ServerRequest

pytest.importorskip("httpx")


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bon.serving.client._FIRST_WAIT_S", 0.02)
    monkeypatch.setattr("bon.serving.client._LONGEST_WAIT_S", 0.5)
    monkeypatch.setattr("bon.serving.endpoints._FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("bon.serving.endpoints._LONGEST_PAUSE_S", 0.5)


def echo(asked: Asked) -> Answer:
    return Answer({"echo": asked.body})


def unless(number: Callable[[Asked], bool], answer: Answer) -> Reply:
    return lambda asked: answer if number(asked) else echo(asked)


@contextmanager
def client(*urls: str, **settings: Any) -> Iterator[ServerClient]:
    values = {"concurrency": 4, "timeout_s": 5.0, "patience_s": 10.0, "api_key": None} | settings
    with ServerClient(urls, **values) as entered:
        yield entered


def requests(number: int) -> list[ServerRequest]:
    return [ServerRequest(key, "/echo", {"row": key}) for key in range(number)]


def bodies(replies: list[ServerReply]) -> dict[Any, Any]:
    assert len({reply.key for reply in replies}) == len(replies)
    return {reply.key: reply.body for reply in sorted(replies, key=lambda one: one.key)}


def expected(number: int) -> dict[int, Any]:
    return {key: {"echo": {"row": key}} for key in range(number)}


def test_every_request_has_its_own_answer_over_few_connections() -> None:
    with FakeServer(echo) as server, client(server.url) as entered:
        assert bodies(list(entered.stream(requests(60)))) == expected(60)
        assert server.num_connections <= 4
        assert server.most_in_flight <= 4
        assert not entered.retries


def test_as_many_are_in_flight_as_allowed_and_no_more_are_pulled() -> None:
    pulled = []

    def lazily() -> Iterator[ServerRequest]:
        for request in requests(40):
            pulled.append(request.key)
            yield request

    with FakeServer(lambda asked: Answer(1, delay_s=0.05)) as server, client(server.url) as entered:
        replies = entered.stream(lazily())
        next(replies)
        assert len(pulled) == 4
        rest = list(replies)
        assert len(rest) == 39
        assert server.most_in_flight == 4


def test_nothing_to_ask_asks_nothing() -> None:
    with FakeServer(echo) as server, client(server.url) as entered:
        assert list(entered.stream([])) == []
        assert server.asked == []


def in_two_seconds() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


@pytest.mark.parametrize("header", [lambda: "1", in_two_seconds])
def test_busy_is_asked_again_after_what_retry_after_says(header: Callable[[], str]) -> None:
    times: list[float] = []

    def reply(asked: Asked) -> Answer:
        times.append(time.monotonic())
        busy = Answer("slow down", status=429, headers={"Retry-After": header()})
        return busy if len(times) == 1 else echo(asked)

    with FakeServer(reply) as server, client(server.url) as entered:
        assert bodies(list(entered.stream(requests(1)))) == expected(1)
        assert entered.retries == {"429": 1}
    assert 0.9 <= times[1] - times[0] < 3


def test_every_third_busy_is_complete_and_counted() -> None:
    busy = Answer("", status=429, headers={"Retry-After": "0"})
    with (
        FakeServer(unless(lambda asked: asked.number % 3 == 0, busy)) as server,
        client(server.url) as entered,
    ):
        assert bodies(list(entered.stream(requests(30)))) == expected(30)
        assert entered.retries == {"429": len(server.posts) // 3}


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (Answer("oops", status=500), "500"),
        (Answer("starting", status=503), "503"),
        (Answer(is_reset=True), "connection"),
        (Answer({"echo": "x" * 1000}, is_cut=True), "connection"),
        (Answer("<html>a proxy's page</html>"), "garbage"),
        (Answer({"echo": 1}, delay_s=9), "timeout"),
    ],
)
def test_a_fault_that_passes_is_asked_again(answer: Answer, cause: str) -> None:
    reply = unless(lambda asked: asked.number == 3, answer)
    with FakeServer(reply) as server, client(server.url, timeout_s=1.5) as entered:
        assert bodies(list(entered.stream(requests(8)))) == expected(8)
        assert entered.retries == {cause: 1}


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        (Answer("engine says no", status=500), "server_error", "status 500: 'engine says no'"),
        (Answer(is_reset=True), "server_lost", "the connection broke"),
        (Answer("<html>"), "server_garbage", "(no JSON): '<html>'"),
        (Answer(1, delay_s=9), "server_timeout", "no answer within 0.3 s"),
    ],
)
def test_one_that_keeps_failing_while_others_do_not_is_a_drop(
    answer: Answer, reason: str, detail: str
) -> None:
    reply = unless(lambda asked: asked.body["row"] == 7, answer)
    with FakeServer(reply) as server, client(server.url, timeout_s=0.3) as entered:
        replies = list(entered.stream(requests(8)))
    (drop,) = [reply.drop for reply in replies if reply.drop]
    assert drop.reason == reason
    assert detail in drop.detail
    assert {reply.key for reply in replies if not reply.drop} == set(range(7))
    assert bodies(replies)[7] is None


def test_a_refused_request_is_a_drop_at_once() -> None:
    said = "the prompt is too long " * 30
    reply = unless(lambda asked: asked.body["row"] == 1, Answer(said, status=400))
    with FakeServer(reply) as server, client(server.url) as entered:
        replies = list(entered.stream(requests(3)))
        assert len(server.posts) == 3
    (drop,) = [reply.drop for reply in replies if reply.drop]
    assert drop.reason == "server_refused"
    assert said[:200].strip() in drop.detail
    assert len(drop.detail) < 230


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("key", [None, "sk-secret"])
def test_a_wrong_key_ends_at_once_and_is_not_shown(status: int, key: str | None) -> None:
    def reply(asked: Asked) -> Answer:
        return Answer(f"bad key {asked.headers.get('Authorization')}", status=status)

    with FakeServer(reply) as server, client(server.url, api_key=key) as entered:
        with pytest.raises(ServerError) as caught:
            list(entered.stream(requests(9)))
        assert len(server.posts) <= 4
        sent = {one.headers.get("Authorization") for one in server.posts}
    assert sent == {f"Bearer {key}" if key else None}
    assert "BON_SERVER_API_KEY" in caught.value.next_step
    assert f"{server.url}/echo" in caught.value.where
    assert "sk-secret" not in str(caught.value)


def test_a_path_that_is_not_there_ends_at_once() -> None:
    with (
        FakeServer(lambda asked: Answer({"detail": "Not Found"}, status=404)) as server,
        client(server.url) as entered,
    ):
        with pytest.raises(ServerPathError) as caught:
            list(entered.stream(requests(9)))
        assert "/echo" in caught.value.where
        assert "Not Found" in caught.value.why
        assert entered.find("/v1/models") is None
        with pytest.raises(ServerPathError):
            entered.get("/v1/models")


def test_a_page_at_a_path_is_not_an_answer() -> None:
    with FakeServer(lambda asked: Answer("<html>hi")) as server, client(server.url) as entered:
        assert entered.find("/version") is None
        with pytest.raises(ServerError, match="no model server"):
            list(entered.stream(requests(1)))


def test_being_sent_elsewhere_is_told() -> None:
    answer = Answer("", status=301, headers={"Location": "https://there.example/"})
    with FakeServer(lambda asked: answer) as server, client(server.url) as entered:
        with pytest.raises(ServerError) as caught:
            entered.get("/v1/models")
        assert "https://there.example/" in caught.value.why


def test_get_gives_json() -> None:
    reply = Answer({"models": []})
    with FakeServer(lambda asked: reply) as server, client(server.url) as entered:
        assert entered.get("/v1/models") == {"models": []}
        assert [(one.path, one.body) for one in server.asked] == [("/v1/models", None)]


def test_a_server_that_is_gone_ends_the_run() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    started_s = time.monotonic()
    with client(url, patience_s=1.0) as entered, pytest.raises(ServerError) as caught:
        list(entered.stream(requests(9)))
    assert 1.0 <= time.monotonic() - started_s < 8
    assert url in caught.value.where
    assert "no connection" in caught.value.why
    assert "same command" in caught.value.next_step


@pytest.mark.parametrize("answer", [Answer("dead engine", status=500), Answer("", status=429)])
def test_a_server_that_answers_nothing_any_more_is_not_a_pool_of_drops(answer: Answer) -> None:
    reply = unless(lambda asked: asked.number > 5, answer)
    with FakeServer(reply) as server, client(server.url, patience_s=1.0) as entered:
        found = []
        with pytest.raises(ServerError, match="nothing was answered for 1 s"):
            found += list(_collected(entered.stream(requests(40)), found))
    assert len(found) == 5
    assert all(reply.drop is None for reply in found)


def _collected(replies: Iterator[ServerReply], into: list[ServerReply]) -> Iterator[ServerReply]:
    for reply in replies:
        into.append(reply)
        yield from ()


def test_the_last_one_left_is_a_drop_where_the_server_still_answers_what_it_did() -> None:
    reply = unless(lambda asked: asked.body == {"row": 1}, Answer("no", status=500))
    with FakeServer(reply) as server, client(server.url) as entered:
        first, second = entered.stream(requests(1)), entered.stream(requests(2)[1:])
        assert bodies(list(first)) == expected(1)
        (found,) = second
        assert found.drop is not None and found.drop.reason == "server_error"
        assert [one.body["row"] for one in server.posts].count(0) == 2


def test_an_outage_behind_a_proxy_costs_nothing_though_what_was_on_its_way_is_answered() -> None:
    started_s = time.monotonic()

    def reply(asked: Asked) -> Answer:
        if 0.4 < time.monotonic() - started_s < 3:
            return Answer("Service Unavailable", status=503)
        return Answer({"echo": asked.body}, delay_s=0.1 if asked.body["row"] % 4 else 1.2)

    with FakeServer(reply) as server, client(server.url) as entered:
        assert bodies(list(entered.stream(requests(40)))) == expected(40)
        assert set(entered.retries) == {"503"}


def test_one_that_brings_the_server_down_each_time_is_a_drop_and_no_other() -> None:
    down_until_s = 0.0

    def reply(asked: Asked) -> Answer:
        nonlocal down_until_s
        if asked.body["row"] == 3:
            down_until_s = time.monotonic() + 0.15
        is_down = time.monotonic() < down_until_s
        return Answer(is_reset=True) if is_down else Answer({"echo": asked.body}, delay_s=0.02)

    with FakeServer(reply) as server, client(server.url, patience_s=60) as entered:
        replies = list(entered.stream(requests(12)))
    assert {reply.key: reply.drop.reason for reply in replies if reply.drop} == {3: "server_lost"}
    assert len(replies) == 12


def test_a_rate_limit_costs_time_and_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    lock, last_s = threading.Lock(), 0.0

    def reply(asked: Asked) -> Answer:
        nonlocal last_s
        with lock:
            if time.monotonic() - last_s < 0.05:
                return Answer("slow down", status=429)
            last_s = time.monotonic()
        return echo(asked)

    with (
        FakeServer(reply) as server,
        client(server.url, concurrency=16, patience_s=0.3) as entered,
    ):
        assert bodies(list(entered.stream(requests(60)))) == expected(60)
        assert entered.retries == {"429": len(server.posts) - 60}
    assert capsys.readouterr().err.count("slow down") == 1


def test_fewer_are_in_flight_where_the_server_takes_fewer() -> None:
    def reply(asked: Asked) -> Answer:
        if server.num_in_flight > 3:
            return Answer("too many", status=429)
        return Answer({"echo": asked.body}, delay_s=0.05)

    with FakeServer(reply) as server, client(server.url, concurrency=32) as entered:
        assert bodies(list(entered.stream(requests(100)))) == expected(100)
        assert sum(entered.retries.values()) < 100


def test_what_alone_is_left_and_sent_away_while_others_are_answered_is_a_drop() -> None:
    reply = unless(lambda asked: asked.body["row"] in (1, 2), Answer("too large", status=429))
    with FakeServer(reply) as server, client(server.url, patience_s=0.6) as entered:
        started_s = time.monotonic()
        replies = list(entered.stream(requests(12)))
    dropped = {reply.key: reply.drop for reply in replies if reply.drop}
    assert {key: drop.reason for key, drop in dropped.items()} == dict.fromkeys(
        (1, 2), "server_busy"
    )
    assert "too large" in dropped[1].detail
    assert 0.6 < time.monotonic() - started_s < 8


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_first_answer_that_is_none_is_that_request_s_own_fault(concurrency: int) -> None:
    def reply(asked: Asked) -> Answer:
        if asked.body["row"] == 0:
            return Answer({"choices": None, "error": "moderated"})
        return Answer({"echo": asked.body}, delay_s=0.5)

    with FakeServer(reply) as server, client(server.url, concurrency=concurrency) as entered:
        replies = list(entered.stream(requests(3), lambda body: body["echo"]["row"]))
        assert 5 <= sum(one.body["row"] == 0 for one in server.posts) <= 6
    (drop,) = [reply.drop for reply in replies if reply.drop]
    assert drop.reason == "server_garbage"
    assert "moderated" in drop.detail
    assert sorted(reply.key for reply in replies) == [0, 1, 2]


@pytest.mark.parametrize("concurrency", [1, 2, 32])
def test_where_nothing_is_what_was_promised_the_run_ends_soon(concurrency: int) -> None:
    started_s = time.monotonic()
    with FakeServer(echo) as server, client(server.url, concurrency=concurrency) as entered:
        with pytest.raises(ServerError, match="no model server") as caught:
            list(entered.stream(requests(100), lambda body: body["choices"]))
        # five times each: eight of them, or all that are in flight; all hundred would be 500
        assert len(server.posts) <= 5 * max(8, concurrency)
    assert '{"echo": {"row": ' in caught.value.why
    assert time.monotonic() - started_s < 12


def test_a_server_that_comes_back_goes_on() -> None:
    port = free_port()
    back = threading.Event()

    def run_later() -> None:
        time.sleep(0.7)
        with FakeServer(echo, port):
            back.wait(20)

    thread = threading.Thread(target=run_later)
    with client(f"http://127.0.0.1:{port}") as entered:
        with FakeServer(unless(lambda asked: asked.number > 4, Answer(1, delay_s=20)), port):
            replies = entered.stream(requests(12))
            found = [next(replies) for _ in range(4)]
        thread.start()
        found += list(replies)
        back.set()
        thread.join()
        assert bodies(found) == expected(12)
        assert set(entered.retries) == {"connection"}


def test_several_servers_share_and_one_that_is_down_is_left_out() -> None:
    slow = Answer({"echo": 1}, delay_s=0.02)
    with FakeServer(lambda asked: slow) as one, FakeServer(lambda asked: slow) as two:
        with client(one.url, two.url) as entered:
            assert len(list(entered.stream(requests(40)))) == 40
        assert abs(len(one.posts) - len(two.posts)) <= 8
        assert one.most_in_flight == two.most_in_flight == 4
        dead = f"http://127.0.0.1:{free_port()}"
        with client(dead, two.url) as entered:
            replies = list(entered.stream(requests(40)))
            assert len(replies) == 40
            assert not any(reply.drop for reply in replies)
            assert 1 <= entered.retries["connection"] <= 8


def test_a_server_that_does_nothing_but_fail_costs_no_request_of_the_other() -> None:
    sick = Answer("out of memory", status=500)
    slow = Answer({"echo": 1}, delay_s=0.02)
    with (
        FakeServer(lambda asked: sick) as one,
        FakeServer(lambda asked: slow) as two,
        client(one.url, two.url) as entered,
    ):
        replies = list(entered.stream(requests(100)))
    assert len(replies) == 100
    assert not any(reply.drop for reply in replies)
    assert len(one.posts) < 30


def test_a_body_that_is_not_what_was_promised() -> None:
    def check(body: Any) -> None:
        if body["echo"]["row"] == 2 and tries.pop():
            raise ValueError("row 2")

    tries = [False, True]
    with FakeServer(echo) as server, client(server.url) as entered:
        assert bodies(list(entered.stream(requests(4), check))) == expected(4)
        assert entered.retries == {"garbage": 1}
        with pytest.raises(ServerError) as caught, client(server.url) as fresh:
            list(fresh.stream(requests(1), lambda body: body["scores"]))
        assert "not what was promised" in caught.value.why
        assert '{"echo": {"row": 0}}' in caught.value.why


def test_leaving_early_cancels_what_is_in_flight() -> None:
    started_s = time.monotonic()
    slow = unless(lambda asked: asked.number > 1, Answer(1, delay_s=20))
    with FakeServer(slow) as server, client(server.url, timeout_s=30) as entered:
        replies = entered.stream(requests(9))
        next(replies)
        replies.close()
        assert len(server.posts) <= 4
    assert time.monotonic() - started_s < 5


def test_an_error_of_the_caller_is_its_own() -> None:
    def broken() -> Iterator[ServerRequest]:
        yield from requests(2)
        raise KeyError("mine")

    with FakeServer(echo) as server, client(server.url) as entered:
        with pytest.raises(KeyError, match="mine"):
            list(entered.stream(broken()))
        assert bodies(list(entered.stream(requests(2)))) == expected(2)


def test_counts_begin_anew_when_it_is_entered_again() -> None:
    with FakeServer(unless(lambda asked: asked.number == 1, Answer("", status=503))) as server:
        entered = ServerClient([server.url], concurrency=1, timeout_s=5, patience_s=5, api_key=None)
        with entered:
            list(entered.stream(requests(1)))
            assert entered.retries == {"503": 1}
        with entered:
            list(entered.stream(requests(1)))
            assert not entered.retries
