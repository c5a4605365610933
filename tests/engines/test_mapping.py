"""A function over items in processes of their own: order, bounds, errors, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mapped import sliced, work
from support.processes import are_gone, children

from bon.engines.mapping import LocalMapper
from bon.errors import EngineError, PoolCorruptError, WorkerDiedError


@pytest.fixture(scope="module")
def mapper() -> Iterator[LocalMapper]:
    with LocalMapper(2) as mapper:
        yield mapper


def test_results_come_in_order_from_all_processes_and_few_are_ahead(mapper: LocalMapper) -> None:
    taken: list[int] = []
    due = 0
    who = set()
    for item, process in mapper.map(work, (taken.append(n) or n for n in range(60))):
        assert item == due
        due += 1
        assert len(taken) <= due + 4, "two for each process beyond the one that is due"
        who.add(process)
    assert due == 60
    assert len(who) == 2
    assert os.getpid() not in who


def test_the_processes_stay_for_the_next_function(mapper: LocalMapper) -> None:
    before = {process for _, process in mapper.map(work, range(20))}
    assert list(mapper.map(sliced, [])) == []
    after = {process for _, process in mapper.map(work, range(20))}
    assert before == after


def test_an_error_is_raised_in_its_turn_and_is_the_same(mapper: LocalMapper) -> None:
    found = mapper.map(work, [0, 1, "damaged", 3])
    assert [next(found)[0], next(found)[0]] == [0, 1]
    with pytest.raises(PoolCorruptError) as caught:
        next(found)
    with pytest.raises(PoolCorruptError) as here:
        work("damaged")
    assert str(caught.value) == str(here.value)
    assert "mapped.py" in "".join(caught.value.__notes__), "where in the process it arose"
    assert [item for item, _ in mapper.map(work, range(5))] == list(range(5)), "and one goes on"


def test_an_error_that_cannot_travel_is_told(mapper: LocalMapper) -> None:
    with pytest.raises(EngineError, match="Unsendable: lost on the way"):
        list(mapper.map(work, ["unsendable"]))


@pytest.mark.parametrize(
    ("how", "why"), [("killed", "killed by SIGKILL"), ("exits", "exit code 7")]
)
def test_a_process_that_is_lost_ends_it(mapper: LocalMapper, how: str, why: str) -> None:
    with pytest.raises(WorkerDiedError) as caught:
        list(mapper.map(work, [0, 1, how, *range(3, 40)]))
    assert caught.value.why.startswith(why)
    assert [item for item, _ in mapper.map(work, range(5))] == list(range(5)), "and one goes on"


def test_a_process_that_was_lost_meanwhile_is_told_and_replaced(mapper: LocalMapper) -> None:
    who = {process for _, process in mapper.map(work, range(20))}
    for process in who:
        os.kill(process, signal.SIGKILL)
    assert are_gone(who)
    with pytest.raises(WorkerDiedError, match="ended"):
        list(mapper.map(work, range(5)))
    assert [item for item, _ in mapper.map(work, range(5))] == list(range(5))


def test_one_call_at_a_time(mapper: LocalMapper) -> None:
    found = mapper.map(work, range(20))
    next(found)
    with pytest.raises(RuntimeError, match="not come to its end"):
        next(mapper.map(work, range(20)))
    assert len(list(found)) == 19


def test_of_a_slice_only_its_rows_travel(mapper: LocalMapper) -> None:
    (table,) = mapper.map(sliced, [3])
    assert table.equals(sliced(3))
    assert table.get_total_buffer_size() < 10_000 < sliced(3).get_total_buffer_size()


def test_who_wants_no_more_leaves_no_process() -> None:
    with LocalMapper(2) as mapper:
        found = mapper.map(work, range(1000))
        next(found)
        there = children(os.getpid())
        assert len(there) >= 2
        found.close()
        assert len(children(os.getpid())) <= len(there) - 2
        list(mapper.map(work, [1]))
    assert not {one for one in children(os.getpid()) if one not in there} - _tracker()


def _tracker() -> set[int]:
    from multiprocessing import resource_tracker

    return {getattr(resource_tracker._resource_tracker, "_pid", None) or -1}


def main() -> None:
    """Map without an end, as a parent that will be killed."""
    with LocalMapper(2) as mapper:
        for _, process in mapper.map(work, iter(int, 1)):
            print(process, flush=True)


def test_processes_go_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = "import sys; sys.path[:0] = sys.argv[1:]; import test_mapping; test_mapping.main()"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    parent = subprocess.Popen([sys.executable, "-c", code, *folders], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    seen: set[int] = set()
    while len(seen) < 2:
        seen.add(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    assert are_gone(seen)
    parent.stdout.close()
