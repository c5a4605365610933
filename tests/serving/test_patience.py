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
    patience, busy, away = waiting(clock), tried(), tried()
    assert not any(patience.note_fault(busy, BUSY) for _ in range(99))
    assert not any(patience.note_fault(away, AWAY) for _ in range(99))
    clock.now_s += 10.5
    assert patience.note_fault(busy, BUSY)  # for so long, while it may answer others
    assert not patience.note_fault(away, AWAY)


def test_answers_to_others_count_from_the_first_fault_on() -> None:
    clock = Clock()
    patience, one = waiting(clock), tried()
    patience.note_answer()
    assert not patience.has_answered_others(one)
    clock.now_s += 1
    patience.note_fault(one, ERROR)
    assert not patience.has_answered_others(one)
    clock.now_s += 1
    patience.note_life()
    assert not patience.has_answered_others(one)
    patience.note_answer()
    assert patience.has_answered_others(one)


def test_it_is_over_when_nothing_was_answered_since_the_first_fault_in_a_row() -> None:
    clock = Clock()
    patience = waiting(clock)
    clock.now_s += 1000  # nothing was asked: that is no fault
    assert not patience.is_over()
    for end in (patience.note_answer, patience.note_life):
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
        patience.note_answer()
    assert capsys.readouterr().err == ""
    for _ in range(6):
        patience.note_fault(tried(), AWAY)
        clock.now_s += 1
    patience.note_answer()
    patience.note_answer()
    first, second = capsys.readouterr().err.splitlines()
    assert "refused; asking again for up to 10 s" in first
    assert "the server answers again" in second
