"""How lost workers are made up for, and how the prompts that lose them are found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.works import PROMPTS, Scoped

from bon.engines.recovery import Lost, Recovery
from bon.errors import PoolCorruptError, WorkerDiedError
from bon.protocols import Event, PartDone, PartWork, Ready, Restarted, Scope
from bon.records import Drop


@dataclass(frozen=True)
class Names(Scoped):
    """A work that only knows its prompts."""

    scope: Scope = field(default_factory=Scope)

    def run(self, parts: object) -> Iterator[Event]:
        raise NotImplementedError


def lost(*, was_ready: bool = True) -> Lost:
    return Lost("worker_killed", "killed by SIGSEGV", WorkerDiedError("it died"), was_ready)


@dataclass
class Workers:
    """Attempts that end where `ends` says so of a prompt; remembers what they were given."""

    ends: Callable[[str], bool] = lambda prompt_id: False
    attempts: list[tuple[list[int], int]] = field(default_factory=list)
    """Parts, and how many prompts of each were tried."""
    computed: list[str] = field(default_factory=list)

    def __call__(self, work: PartWork, parts: Iterable[int | None]) -> Iterator[Event | Lost]:
        given = [part for part in parts if part is not None]
        tried = -1 if work.scope.only is None else len(work.scope.only)
        self.attempts.append((given, tried))
        yield Ready(0.0)
        for part in given:
            ids = work.prompt_ids(part)
            if any(map(self.ends, ids)):
                yield lost()
                return
            if work.scope.only is None:
                self.computed += ids
            yield PartDone(part)


def ids_of(*parts: int) -> list[str]:
    return [one for part in parts for one in Names().prompt_ids(part)]


def dropped(work: PartWork) -> list[tuple[str, Drop]]:
    return list(work.scope.dropped.items())


def done(events: list[Event]) -> list[int]:
    return [event.part for event in events if isinstance(event, PartDone)]


def test_without_a_death_there_is_one_worker() -> None:
    workers = Workers()
    events = list(Recovery(workers).run(Names(), [0, 1, 2]))
    assert done(events) == [0, 1, 2]
    assert workers.attempts == [([0, 1, 2], -1)]


def test_a_death_by_chance_costs_one_worker_and_drops_nothing() -> None:
    once = iter([True])
    workers = Workers(lambda prompt_id: prompt_id == "1-0" and next(once, False))
    events = list(Recovery(workers).run(Names(), [0, 1, 2]))
    assert done(events) == [0, 1, 2]
    assert workers.computed == ids_of(0, 1, 2)
    assert workers.attempts == [([0, 1, 2], -1), ([1, 2], -1)]
    assert [e.doing for e in events if isinstance(e, Restarted)] == ["starting it again"]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(ids_of(0, 1, 2, 3)), max_size=3), st.integers(1, 4))
def test_exactly_the_prompts_that_kill_are_dropped(killers: set[str], num_parts: int) -> None:
    parts = list(range(num_parts))
    killers = {one for one in killers if one in ids_of(*parts)}
    if any(set(ids_of(part)) <= killers for part in parts):
        return  # that is the next test
    workers = Workers(lambda prompt_id: prompt_id in killers)
    events = list(Recovery(workers).run(Names(), parts))
    assert done(events) == parts, "in order, each once"
    assert workers.computed == [one for one in ids_of(*parts) if one not in killers]


def test_one_killer_among_many_parts_takes_few_workers() -> None:
    workers = Workers(lambda prompt_id: prompt_id == "5-3")
    list(Recovery(workers).run(Names(), list(range(100))))
    # all, again, alone, 3 halvings, a confirmation; then the rest by doubling
    assert len(workers.attempts) <= 3 + 2 * 3 + 3 + 8
    assert len(workers.computed) == 100 * PROMPTS - 1


def test_drops_say_what_happened() -> None:
    found: dict[str, str] = {}

    def attempt(work: PartWork, parts: Iterable[int | None]) -> Iterator[Event | Lost]:
        found.update(
            {key: f"{one.reason}: {one.detail}" for key, one in work.scope.dropped.items()}
        )
        yield from Workers(lambda prompt_id: prompt_id == "0-7")(work, parts)

    list(Recovery(attempt).run(Names(), [0]))
    assert list(found) == ["0-7"]
    assert found["0-7"].startswith("worker_killed: ")
    assert "killed by SIGSEGV" in found["0-7"]


def test_a_machine_that_breaks_in_the_middle_ends_the_run_and_drops_nothing() -> None:
    committed: list[int] = []
    workers = Workers(lambda prompt_id: prompt_id.startswith(("2-", "3-")))
    with pytest.raises(WorkerDiedError):
        for event in Recovery(workers).run(Names(), [0, 1, 2, 3]):
            committed += done([event])
    assert committed == [0, 1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=12))
def test_deaths_by_chance_in_a_search_drop_no_innocent_prompt(chances: list[bool]) -> None:
    """One death by chance after the other, but never twice for the same prompts."""
    left, hit = list(chances), set[object]()

    class Unlucky(Workers):
        def __call__(self, work: PartWork, parts: Iterable[int | None]) -> Iterator[Event | Lost]:
            if left and left.pop(0) and work.scope.only not in hit:
                hit.add(work.scope.only)
                yield Ready(0.0)
                yield lost()
                return
            yield from super().__call__(work, parts)

    workers = Unlucky(lambda prompt_id: prompt_id == "0-3")
    try:
        list(Recovery(workers).run(Names(), [0, 1]))
    except WorkerDiedError:
        return  # the machine is blamed: nothing is dropped, and the same command goes on
    assert workers.computed == [one for one in ids_of(0, 1) if one != "0-3"]


def test_a_machine_that_breaks_for_a_while_during_a_search_drops_nothing() -> None:
    num_workers = 0

    def attempt(work: PartWork, parts: Iterable[int | None]) -> Iterator[Event | Lost]:
        nonlocal num_workers
        num_workers += 1
        assert not work.scope.dropped
        if 5 <= num_workers <= 40:
            yield Ready(0.0)
            yield lost()
        else:
            yield from Workers(lambda prompt_id: prompt_id == "0-7")(work, parts)

    with pytest.raises(WorkerDiedError):
        list(Recovery(attempt).run(Names(), [0, 1]))
    assert num_workers < 12


def test_a_fault_that_kills_everything_is_said_after_few_loads() -> None:
    workers = Workers(lambda prompt_id: True)
    with pytest.raises(WorkerDiedError):
        list(Recovery(workers).run(Names(), list(range(50))))
    assert len(workers.attempts) <= 10


def test_a_part_that_kills_whole_is_dropped_where_another_part_lives() -> None:
    workers = Workers(lambda prompt_id: prompt_id.startswith("1-"))
    events = list(Recovery(workers).run(Names(), [0, 1, 2]))
    assert done(events) == [0, 1, 2]
    assert workers.computed == ids_of(0, 2)


@dataclass(frozen=True)
class OfMany(Names):
    """Part 1 has one prompt, as the last of an input may; part 0 is another worker's, or done."""

    def prompt_ids(self, part: int) -> list[str]:
        return [one for one in super().prompt_ids(part) if part != 1 or one == "1-0"]

    def others(self, part: int) -> Iterator[tuple[int, str]]:
        yield from ((0, one) for one in super().prompt_ids(0))


def test_the_only_prompt_that_is_left_is_dropped_where_one_lives_that_another_worker_has() -> None:
    workers = Workers(lambda prompt_id: prompt_id == "1-0")
    assert done(list(Recovery(workers).run(OfMany(), [1]))) == [1]
    assert workers.computed == []
    assert ([0], 1) in workers.attempts


def test_the_only_prompt_that_is_left_is_not_blamed_for_a_machine_where_nothing_lives() -> None:
    workers = Workers(lambda prompt_id: True)
    with pytest.raises(WorkerDiedError):
        list(Recovery(workers).run(OfMany(), [1]))
    assert len(workers.attempts) <= 10


def test_prompts_that_kill_only_together_end_the_run() -> None:
    class Together(Workers):
        def __call__(self, work: PartWork, parts: Iterable[int | None]) -> Iterator[Event | Lost]:
            yield Ready(0.0)
            if {"0-0", "0-7"} <= set(work.prompt_ids(0)):
                yield lost()
            else:
                yield PartDone(0)

    with pytest.raises(WorkerDiedError):
        list(Recovery(Together()).run(Names(), [0]))


def test_deaths_while_loading_are_not_blamed_on_prompts() -> None:
    attempts: list[list[int | None]] = []

    def attempt(work: PartWork, parts: Iterable[int | None]) -> Iterator[Event | Lost]:
        attempts.append(list(parts))
        yield lost(was_ready=False)

    with pytest.raises(WorkerDiedError):
        list(Recovery(attempt, max_restarts=2).run(Names(), [0, 1]))
    assert attempts == [[0, 1]] * 3


def test_an_error_of_the_work_ends_the_run() -> None:
    def attempt(work: PartWork, parts: Iterable[int | None]) -> Iterator[Event | Lost]:
        yield PartDone(0)
        raise PoolCorruptError("bad part")

    with pytest.raises(PoolCorruptError):
        list(Recovery(attempt).run(Names(), [0, 1]))


def test_dying_after_the_last_part_is_no_trouble() -> None:
    def attempt(work: PartWork, parts: Iterable[int | None]) -> Iterator[Event | Lost]:
        yield Ready(0.0)
        yield PartDone(0)
        yield lost()

    assert done(list(Recovery(attempt).run(Names(), [0]))) == [0]
