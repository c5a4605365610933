"""Signs of life: at most one a second, nowhere unless somebody listens."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bon import heartbeat
from bon.heartbeat import beat, beating, send_beats_to


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    found: list[float] = []
    send_beats_to(lambda: found.append(time.monotonic()))
    yield found
    send_beats_to(None)


def test_without_a_listener_nothing_happens() -> None:
    send_beats_to(None)
    beat()


def test_many_beats_are_one_a_second(beats: list[float]) -> None:
    for _ in range(1000):
        beat()
    assert len(beats) == 1


def test_later_beats_are_sent(beats: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_EVERY_S", 0.01)
    beat()
    time.sleep(0.02)
    beat()
    assert len(beats) == 2


def test_a_block_beats_by_itself_and_stops(
    beats: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_EVERY_S", 0.01)
    with beating():
        time.sleep(0.2)
    assert len(beats) >= 3
    num = len(beats)
    time.sleep(0.05)
    assert len(beats) == num
