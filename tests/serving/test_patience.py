"""When a request is given up, and when a server; on a clock that the test turns."""

from __future__ import annotations

import pytest

from bon.serving.faults import Fault
from bon.serving.messages import ServerRequest
from bon.serving.patience import Patience, Tried

ERROR = Fault("500", "oops", reason="server_error")
BUSY = Fault("429", "later")
AWAY = Fault("connection", "refused")
LATE = Fault("timeout", "too late", reason="server_timeout")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def waiting(clock: Clock, patience_s: float = 10.0) -> Patience:
    return Patience(patience_s, clock)


def tried() -> Tried:
    return Tried(ServerRequest(0, "/x", {}))


@pytest.mark.parametrize(("fault", "most"), [(ERROR, 5), (LATE, 3)])
def test_a_request_may_be_at_fault_after_some_faults(fault: Fault, most: int) -> None:
    patience, one = waiting(Clock()), tried()
    assert [patience.note_fault(one, fault) for _ in range(most)] == [False] * (most - 1) + [True]


def test_a_busy_or_absent_server_is_no_request_s_fault() -> None:
    clock = Clock()
    patience, one = waiting(clock), tried()
    for fault in (BUSY, AWAY) * 99:
        clock.now_s += 1
        assert not patience.note_fault(one, fault)


def test_what_was_asked_before_and_is_answered_late_says_nothing() -> None:
    clock = Clock()
    patience, early, one, late = waiting(clock), tried(), tried(), tried()
    patience.note_attempt(early, "a")
    clock.now_s += 1
    patience.note_attempt(one, "a")
    clock.now_s += 1
    patience.note_answer(early)
    assert not patience.has_answered("a", one.asked_s)
    patience.note_life()
    assert not patience.has_answered("a", one.asked_s)
    patience.note_attempt(late, "a")
    patience.note_answer(late)
    assert patience.has_answered("a", one.asked_s)
    assert not patience.has_answered("b", one.asked_s)
    assert not patience.has_answered("a", late.asked_s)


def test_faults_of_a_suspect_count_where_others_were_answered_between_them() -> None:
    clock = Clock()
    patience, one, other = waiting(clock), tried(), tried()
    one.is_suspect = True
    found = []
    for number in range(11):
        clock.now_s += 1
        if number % 2:
            patience.note_attempt(other, "a")
            patience.note_answer(other)
        clock.now_s += 1
        patience.note_attempt(one, "a")
        found.append(patience.note_fault(one, ERROR))
    assert found == [False] * 9 + [True, True]
    assert one.num_faults == {"server_error": 5}


def test_one_is_stuck_when_it_and_all_else_waits_for_too_long() -> None:
    clock = Clock()
    patience, one, other = waiting(clock), tried(), tried()
    patience.note_fault(one, BUSY)
    clock.now_s += 9
    patience.note_answer(other)
    clock.now_s += 9
    patience.note_answer(other, is_probe=True)
    assert not patience.is_stuck(one)
    clock.now_s += 2
    assert patience.is_stuck(one)
    patience.note_fault(other, BUSY)
    assert not patience.is_stuck(other)


def test_a_rate_limit_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    patience = waiting(Clock())
    for _ in range(9):
        patience.note_fault(tried(), BUSY)
        patience.note_answer(tried())
    assert capsys.readouterr().err.count("later; asking fewer at once") == 1


def test_it_is_over_when_nothing_was_answered_since_the_first_fault_in_a_row() -> None:
    clock = Clock()
    patience = waiting(clock)
    clock.now_s += 1000  # nothing was asked: that is no fault
    assert not patience.is_over()
    for end in (lambda: patience.note_answer(tried()), patience.note_life):
        patience.note_fault(tried(), AWAY)
        clock.now_s += 9
        patience.note_fault(tried(), ERROR)
        assert not patience.is_over()
        end()
        clock.now_s += 9
        assert not patience.is_over()
    patience.note_fault(tried(), BUSY)
    clock.now_s += 10.1
    assert patience.is_over()


def test_a_longer_silence_and_its_end_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    patience = waiting(clock)
    for _ in range(3):
        patience.note_fault(tried(), AWAY)
        patience.note_answer(tried())
    assert capsys.readouterr().err == ""
    for _ in range(6):
        patience.note_fault(tried(), AWAY)
        clock.now_s += 1
    patience.note_answer(tried())
    patience.note_answer(tried())
    first, second = capsys.readouterr().err.splitlines()
    assert "refused; asking again for up to 10 s" in first
    assert "the server answers again" in second
