"""`judge:server:URL`: what it is planned as, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.judges import ChatServer, settings_of
from support.servers import Answer, Asked, FakeServer

from bon.cli.plans.judge import JUDGE
from bon.errors import ServerError, SettingsError


def fingerprint(options: str, **server: Any) -> dict[str, Any]:
    with FakeServer(ChatServer(lambda question: "", **server)) as started:
        return JUDGE.plan(settings_of(f"judge:server:{started.url}{options}")).fingerprint


@pytest.mark.parametrize("name", ["/data/models/Judge-8B", "./Judge-8B", "Judge-8B"])
def test_a_judge_is_known_by_its_name_wherever_the_server_keeps_it(name: str) -> None:
    found = fingerprint("?mode=rubric", models=(name,))
    assert (found["spec"], found["model"]) == ("judge:server", "Judge-8B")
    assert "/data" not in str(found)


def test_whether_the_judge_was_told_to_think_decides_its_scores() -> None:
    told, not_told = (fingerprint("?mode=rubric", owned_by=owner) for owner in ("vllm", "openai"))
    assert (told["sends_variables"], not_told["sends_variables"]) == (True, False)
    assert {key for key in told if told[key] != not_told[key]} == {"sends_variables"}


@pytest.mark.parametrize("thinking", ["true", "false"])
def test_thinking_is_refused_where_the_server_would_not_be_told(thinking: str) -> None:
    options = f"?mode=rubric&thinking={thinking}"
    with pytest.raises(SettingsError, match="'thinking' does nothing") as caught:
        fingerprint(options, owned_by="openai")
    assert "openai" in caught.value.why
    assert fingerprint(options, owned_by="sglang")["thinking"] is (thinking == "true")


def test_one_of_several_models_must_be_named() -> None:
    with pytest.raises(ServerError, match="several models") as caught:
        fingerprint("?mode=rubric", models=("a", "b"))
    assert "?model=" in caught.value.next_step
    assert fingerprint("?mode=rubric&model=b", models=("a", "b"))["model"] == "b"


def test_a_server_that_lists_no_models_is_believed() -> None:
    def none(asked: Asked) -> Answer | None:
        return Answer({}, status=404) if asked.path == "/v1/models" else None

    assert fingerprint("?mode=rubric&model=m", fault=none)["model"] == "m"


def test_a_wrong_url_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bon.serving.contact._FIRST_PATIENCE_S", 0.3)
    start_s = time.monotonic()
    settings = settings_of("judge:server:http://127.0.0.1:9", server_patience_s=300.0)
    with pytest.raises(ServerError, match="not reached") as caught:
        JUDGE.plan(settings)
    assert time.monotonic() - start_s < 10
    assert "check the URL" in caught.value.next_step
