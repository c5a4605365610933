from __future__ import annotations

from typing import Any

import pytest
from support.servers import Answer, Asked, FakeServer

from bon.errors import ServerError
from bon.serving.client import ServerClient
from bon.serving.models import ServedModel, find_served_model


def find(*bodies: Any, wanted: str | None = None) -> ServedModel:
    """Ask one server for each body; one that is none has no such path."""

    def reply(body: Any) -> Any:
        def answer(asked: Asked) -> Answer:
            return Answer({}, status=404) if body is None else Answer(body)

        return answer

    servers = [FakeServer(reply(body)) for body in bodies]
    for server in servers:
        server.__enter__()
    try:
        with ServerClient(
            [server.url for server in servers],
            concurrency=1, timeout_s=5, patience_s=1, api_key=None,
        ) as client:  # fmt: skip
            return find_served_model(client, wanted)
    finally:
        for server in servers:
            server.__exit__()


def models(*names: str, **others: Any) -> dict[str, Any]:
    return {"data": [{"id": name, "owned_by": "vLLM", **others} for name in names]}


def test_the_only_model_needs_no_name() -> None:
    found = find(models("org/name", max_model_len=512))
    assert found == ServedModel("org/name", "vllm", 512)
    assert found.name == "org/name"


@pytest.mark.parametrize("path", ["/a/b/name", "./name", "~/name/"])
def test_a_path_is_known_by_its_last_part(path: str) -> None:
    assert find(models(path)).name == "name"


def test_several_names_of_one_model_are_one() -> None:
    assert find(models("a", "b", root="/m")).id == "a"
    assert find(models("a", "b", root="/m"), wanted="b").id == "b"


@pytest.mark.parametrize(
    ("body", "wanted", "what"),
    [
        (models("a", "b"), None, "several models"),
        (models("a", "b"), "c", "no model 'c'"),
        (models(), None, "does not say"),
        (None, None, "does not say"),
        ({"data": 3}, None, "does not say"),
        ([], None, "does not say"),
    ],
)
def test_no_model_can_be_told(body: Any, wanted: str | None, what: str) -> None:
    with pytest.raises(ServerError, match=what) as caught:
        find(body, wanted=wanted)
    assert caught.value.where.endswith("/v1/models")
    assert "?model=" in caught.value.next_step


def test_a_server_that_lists_none_is_believed() -> None:
    assert find(None, wanted="x") == ServedModel("x", "")


def test_servers_that_share_the_load_have_the_same_model() -> None:
    with pytest.raises(ServerError, match="not the same"):
        find(models("a"), models("b"))
    with pytest.raises(ServerError, match="not the same"):  # they go by other names
        find(models("/x/a"), models("/y/a"))
    assert find(models("a", max_model_len=9), models("a", max_model_len=5)).max_length == 5
