"""What a server says of itself: kinds, models and lengths, from what each really answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support.servers import Answer, Asked, FakeServer, Sglang, free_port

from bon.errors import ServerError, ServerGoneError
from bon.scorers.server.discovery import FoundServer, find_servers
from bon.serving.client import ServerClient

pytest.importorskip("httpx")


def paths(**found: Any) -> Callable[[Asked], Answer]:
    """Answers these paths (`__` for `/`), no other."""
    bodies = {f"/{name.replace('__', '/')}": body for name, body in found.items()}

    def reply(asked: Asked) -> Answer:
        if asked.path in bodies:
            return Answer(bodies[asked.path])
        return Answer({"detail": "Not Found"}, status=404)

    return reply


def listed(*names: str, owner: str = "vllm", root: str | None = None, **more: Any) -> Any:
    rows = [{"id": name, "owned_by": owner, "root": root or name, **more} for name in names]
    return {"object": "list", "data": rows}


@contextmanager
def client(*replies: Callable[[Asked], Answer]) -> Iterator[ServerClient]:
    with ExitStack() as stack:
        urls = [stack.enter_context(FakeServer(reply)).url for reply in replies]
        yield stack.enter_context(entered(urls))


def entered(urls: list[str]) -> ServerClient:
    return ServerClient(urls, concurrency=1, timeout_s=5, patience_s=0.5, api_key=None)


def find(*replies: Callable[[Asked], Answer], **wanted: Any) -> FoundServer:
    with client(*replies) as one:
        found, lost = find_servers(one, wanted.get("model"), wanted.get("kind"))
        assert lost == []
        return found


def refused(*replies: Callable[[Asked], Answer], **wanted: Any) -> ServerError:
    with pytest.raises(ServerError) as caught:
        find(*replies, **wanted)
    assert caught.value.where
    assert caught.value.next_step
    return caught.value


def test_vllm() -> None:
    reply = paths(v1__models=listed("reward", root="/models/rm-8b", max_model_len=4096))
    found = find(reply)
    assert found == FoundServer("vllm", "reward", "/models/rm-8b", "/models/rm-8b", 4096)
    assert found.name == "rm-8b"


@pytest.mark.parametrize(
    ("root", "name"),
    [("org/rm", "org/rm"), ("rm", "rm"), ("/a/b/rm", "rm"), ("./rm/", "rm"), ("a/b/rm", "rm")],
)
def test_a_folder_is_known_by_its_own_name(root: str, name: str) -> None:
    assert FoundServer("vllm", "m", root, root, None).name == name


def test_sglang() -> None:
    found = find(Sglang("org/reward", max_model_len=512))
    assert found == FoundServer("sglang", "org/reward", "org/reward", "org/reward", 512)
    assert found.name == "org/reward"


def test_sglang_of_a_newer_path_and_without_a_list() -> None:
    info = {"model_path": "org/rm", "tokenizer_path": "org/tok", "max_context_length": 99}
    for path in ("get_model_info", "model_info"):
        found = find(paths(**{path: {**info, "is_generation": False}}))
        assert found == FoundServer("sglang", "org/rm", "org/rm", "org/tok", 99)


def test_vllm_behind_another_owner_s_name_is_known_by_its_version() -> None:
    reply = paths(v1__models=listed("m", owner="us"), version={"version": "0.32.0"})
    assert find(reply).kind == "vllm"


def test_a_kind_that_cannot_be_told_may_be_said() -> None:
    reply = paths(v1__models=listed("m", owner="us"))
    assert "?kind=vllm" in refused(reply).next_step
    assert find(reply, kind="sglang") == FoundServer("sglang", "m", "m", "m", None)
    assert find(reply, kind="vllm").kind == "vllm"


def test_one_of_several_models_has_to_be_named() -> None:
    reply = paths(v1__models=listed("a", "b"))
    said = refused(reply)
    assert "a, b" in said.why
    assert "?model=" in said.next_step
    assert find(reply, model="b").model == "b"
    assert "'c'" in refused(reply, model="c").what


def test_several_names_of_one_model_are_one() -> None:
    assert find(paths(v1__models=listed("a", "b", root="org/rm"))).root == "org/rm"


@pytest.mark.parametrize("root", [None, "", "org/rm"])
def test_several_models_of_which_one_has_no_root_are_several(root: str | None) -> None:
    rows = [{"id": "a", "owned_by": "vllm", "root": root}, {"id": "b", "owned_by": "vllm"}]
    said = refused(paths(v1__models={"data": rows}))
    assert "several models" in said.what
    assert "a, b" in said.why


def test_a_server_that_names_nothing_needs_a_name() -> None:
    reply = paths(version={"version": "0.32.0"})
    assert "?model=" in refused(reply).next_step
    assert find(reply, model="org/rm").root == "org/rm"


@pytest.mark.parametrize("body", [None, [], "page", {"data": None}, {"data": ["x", {"id": 3}]}])
def test_a_list_that_is_none(body: Any) -> None:
    reply = paths(v1__models=body, version={"version": "0.32.0"})
    assert find(reply, model="m").model == "m"


def test_a_generator_is_no_reward_model() -> None:
    assert "--is-embedding" in refused(Sglang("org/chat", is_generation=True)).next_step


def test_servers_that_share_the_load_are_the_same() -> None:
    same = [paths(v1__models=listed(n, root=f"/{n}/rm", max_model_len=m)) for n, m in
            (("a", 4096), ("b", 1024))]  # fmt: skip
    assert find(*same).max_length == 1024
    other = paths(v1__models=listed("a", root="/a/other"))
    assert "/a/other" in refused(same[0], other).why


def test_one_that_is_not_reached_is_named_and_left_out() -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with FakeServer(Sglang("org/rm")) as server, entered([dead, server.url]) as one:
        found, lost = find_servers(one, None, None)
    assert (found.root, lost) == ("org/rm", [dead])
    with entered([dead]) as one, pytest.raises(ServerGoneError):
        find_servers(one, None, None)
