"""The first words with a server."""

from __future__ import annotations

import time

import pytest
from support.servers import free_port

from bon.errors import ServerGoneError
from bon.serving.contact import first_contact


def test_a_wrong_url_is_told_soon_in_the_callers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bon.serving.contact._FIRST_PATIENCE_S", 0.3)
    url, started_s = f"http://127.0.0.1:{free_port()}", time.monotonic()
    with (
        pytest.raises(ServerGoneError, match="nobody is in") as caught,
        first_contact([url], timeout_s=300, patience_s=300, otherwise="nobody is in") as client,
    ):
        client.get("/v1/models")
    assert url in caught.value.where
    assert "start it, or check the URL" in caught.value.next_step
    assert time.monotonic() - started_s < 30
