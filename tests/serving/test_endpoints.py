"""Which of several servers is asked: the least busy one, and one that is down not at all."""

from __future__ import annotations

import asyncio
import time

import pytest

from bon.serving.endpoints import Endpoint, Endpoints
from bon.serving.faults import Fault


def test_the_one_with_the_fewest_in_flight_is_taken() -> None:
    async def take() -> list[str]:
        endpoints = Endpoints(["a", "b"], 3)
        taken = [await endpoints.take() for _ in range(5)]
        endpoints.give_back(taken[1])
        endpoints.give_back(taken[3])
        taken += [await endpoints.take(), await endpoints.take("b")]
        return [one.url for one in taken]

    assert asyncio.run(take()) == ["a", "b", "a", "b", "a", "b", "b"]


def test_where_all_are_full_one_is_waited_for() -> None:
    async def take() -> float:
        endpoints = Endpoints(["a"], 1)
        first = await endpoints.take()
        asyncio.get_running_loop().call_later(0.2, endpoints.give_back, first)
        started_s = time.monotonic()
        await endpoints.take()
        return time.monotonic() - started_s

    assert 0.15 < asyncio.run(take()) < 2


def test_one_that_is_lost_is_tried_by_one_request_after_a_growing_pause() -> None:
    one = Endpoint("a", 8)
    pauses = []
    for _ in range(9):
        one.is_lost()
        now_s = time.monotonic()
        assert not one.has_room(now_s)
        pauses.append(one.closed_until_s - now_s)
        assert one.has_room(one.closed_until_s)
    assert pauses[0] == pytest.approx(0.25, rel=0.3)
    assert pauses[-1] == pytest.approx(5, rel=0.3)
    one.num_in_flight = 1
    assert not one.has_room(one.closed_until_s)
    one.is_well()
    assert one.has_room(time.monotonic())


def test_one_that_does_nothing_but_fail_is_left_alone_too() -> None:
    now_s = time.monotonic
    one, fault = Endpoint("a", 8), Fault("500", "", reason="server_error")
    for _ in range(2):
        one.note(fault)
    assert one.has_room(now_s())
    one.is_well()
    for _ in range(2):
        one.note(fault)
    one.note(Fault("429", ""))
    one.note(fault)
    assert one.has_room(now_s())
    for _ in range(2):
        one.note(fault)
    assert not one.has_room(now_s())


def test_another_than_the_one_that_failed_is_taken() -> None:
    async def take() -> list[str]:
        endpoints = Endpoints(["a", "b"], 1)
        return [(await endpoints.take(avoid="a")).url, (await endpoints.take(avoid="a")).url]

    assert asyncio.run(take()) == ["b", "a"]


def test_a_429_halves_how_many_are_in_flight_and_answers_raise_it_slowly() -> None:
    one, busy = Endpoint("a", 16), Fault("429", "slow down")
    one.num_in_flight = 16
    asked_s = time.monotonic()
    one.note(busy, asked_s)
    one.note(busy, asked_s)  # it was on its way when the first came back
    assert one.limit == 8
    one.num_in_flight = 7
    assert one.has_room(time.monotonic())
    one.num_in_flight = 8
    assert not one.has_room(time.monotonic())
    for _ in range(9):
        one.note_answer()
    assert 8.9 < one.limit < 9.1
    for _ in range(500):
        one.note_answer()
    assert one.limit == 16


def test_a_429_lowers_no_further_than_to_one_and_other_faults_do_not() -> None:
    one = Endpoint("a", 4)
    for fault in (Fault("408", "late"), Fault("500", "", reason="server_error")):
        one.note(fault)
        assert one.limit == 4
    for _ in range(9):
        one.num_in_flight = 1
        one.note(Fault("429", ""))
    assert one.limit == 1
    endpoints = Endpoints(["a", "b"], 4)
    assert endpoints.num_at_once == 8
