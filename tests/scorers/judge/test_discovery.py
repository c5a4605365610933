from __future__ import annotations

from typing import Any

import pytest
from support.judges import ChatServer
from support.servers import Answer, Asked, FakeServer

from bon.errors import ServerError
from bon.scorers.judge.discovery import ServedModel, find_served_model

PATIENCE: dict[str, Any] = {"concurrency": 2, "timeout_s": 5.0, "patience_s": 0.2}


def say(question: str) -> None: ...


def find(*servers: ChatServer, wanted: str | None = None) -> ServedModel:
    if not servers:
        return find_served_model(["http://127.0.0.1:9"], wanted, **PATIENCE)
    with FakeServer(servers[0]) as first, FakeServer(servers[-1]) as last:
        urls = [first.url, last.url][: len(servers)]
        return find_served_model(urls, wanted, **PATIENCE)


def test_the_only_model_is_the_judge() -> None:
    assert find(ChatServer(say, ("m",))) == ServedModel("m", True)
    assert find(ChatServer(say, ("m",), "system")) == ServedModel("m", False)
    assert find(ChatServer(say, ("m",)), ChatServer(say, ("m",), "x")) == ServedModel("m", False)


def test_one_of_several_must_be_named() -> None:
    assert find(ChatServer(say, ("a", "b")), wanted="b").name == "b"
    with pytest.raises(ServerError, match="which model") as caught:
        find(ChatServer(say, ("a", "b")))
    assert caught.value.why == "it has a, b"
    assert "?model=" in caught.value.next_step


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(ServerError, match="no model 'c'"):
        find(ChatServer(say, ("a", "b")), wanted="c")
    with pytest.raises(ServerError, match="different models"):
        find(ChatServer(say, ("a",)), ChatServer(say, ("b",)))
    with pytest.raises(ServerError) as caught:
        find(ChatServer(say, ()))
    assert caught.value.why == "it names no model"


@pytest.mark.parametrize("body", [[], {"data": 3}, {"data": [{}]}, {"data": ["a"]}, {}])
def test_a_list_of_models_that_is_none(body: Any) -> None:
    def fault(asked: Asked) -> Answer:
        return Answer(body)

    with pytest.raises(ServerError):
        find(ChatServer(say, fault=fault))


def test_nobody_there() -> None:
    with pytest.raises(ServerError):
        find()
