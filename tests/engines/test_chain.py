"""Stages side by side: a part goes on to the next one as soon as it is done in one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chained import Follows, Lingers, Waits
from support.works import Deadly, Work

from bon.engines.chain import Chain
from bon.engines.local import LocalEngine
from bon.engines.shares import Share
from bon.errors import PoolCorruptError, SettingsError
from bon.protocols import Event, Needs, PartDone, Ready, Restarted, Stage


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Where the parts of two stages are."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def engine(folder: Path, num_workers: int = 1) -> LocalEngine:
    return LocalEngine(folder / "worker.log", shares=numbered(num_workers), split=numbered)


def numbered(num_shares: int) -> tuple[Share, ...]:
    return tuple(map(Share, range(num_shares)))


def done(events: list[tuple[int, Event]], stage: int) -> list[int]:
    return [one.part for number, one in events if number == stage and isinstance(one, PartDone)]


def test_a_part_is_in_the_second_stage_before_the_last_one_is_in_the_first(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    one, two = folders
    stages = [Stage(Waits(one, two), range(4)), Stage(Follows(two, one), range(4))]
    events = list(engine(tmp_path).run_chain(stages))
    assert done(events, 0) == done(events, 1) == [0, 1, 2, 3]
    logs = sorted(path.name for path in tmp_path.glob("*.log"))
    assert logs == ["worker-1.log", "worker.log"]


def test_a_part_goes_only_where_it_has_to_be_done(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    one, two = folders
    (one / "part-7").touch()  # done before
    stages = [Stage(Work(one), [1, 2, 3]), Stage(Follows(two, one), [2, 7], Needs(has_model=False))]
    events = list(engine(tmp_path, 1).run_chain(stages))
    assert done(events, 0) == [1, 2, 3]
    assert sorted(done(events, 1)) == [2, 7]


def test_a_stage_that_has_nothing_to_do_starts_no_worker(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    one, two = folders
    stages = [Stage(Work(one), []), Stage(Work(two), [0])]
    events = list(engine(tmp_path).run_chain(stages))
    assert [number for number, event in events if isinstance(event, Ready)] == [1]
    assert not (one / "pids").exists()


def test_a_worker_that_is_slow_to_end_does_not_keep_others_waiting(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    one, two = folders
    stages = [Stage(Lingers(one, two), range(4)), Stage(Follows(two, one), range(4))]
    events = list(engine(tmp_path).run_chain(stages))
    assert done(events, 1) == [0, 1, 2, 3]
    assert (one / "all went on").exists(), "it was waited for, and it was not made to go"


@pytest.mark.slow
def test_prompts_that_kill_one_stage_are_found_while_the_other_goes_on(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    one, two = folders
    stages = [
        Stage(Deadly(one, frozenset({"2-5"})), range(5)),
        Stage(Deadly(two, frozenset({"1-3"})), range(5)),
    ]
    events = list(engine(tmp_path).run_chain(stages))
    assert {number for number, event in events if isinstance(event, Restarted)} == {0, 1}
    for folder, number, lost in ((one, 0, "2-5"), (two, 1, "1-3")):
        assert sorted(done(events, number)) == list(range(5))
        kept = [one for part in range(5) for one in (folder / f"part-{part}").read_text().split()]
        assert len(kept) == 5 * 8 - 1
        assert lost not in kept


def test_an_error_of_one_stage_ends_all(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    one, two = folders
    stages = [
        Stage(Work(one, "hang", at=1), range(3)),
        Stage(Work(two, "bon_error", at=0), range(3)),
    ]
    with pytest.raises(PoolCorruptError):
        list(engine(tmp_path).run_chain(stages))
    assert not (one / "part-1").exists()
    for pid in (one / "pids").read_text().split() + (two / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def test_each_later_model_has_workers_of_its_own_one_for_eight(tmp_path: Path) -> None:
    def dealt(num_workers: int, *has_model: bool) -> list[list[int]]:
        shares = engine(tmp_path, num_workers)._dealt([Needs(one) for one in has_model])
        return [[share.number for share in one] for one in shares]

    assert dealt(3, True, True) == [[0, 1, 2], [3]]
    assert dealt(2, True, False, True, True) == [[0, 1], [5], [2], [3]]
    assert dealt(1, True, False, False) == [[0], [2], [3]]
    assert dealt(2, False, True, True) == [[3], [0, 1], [2]]
    assert dealt(1, False, False) == [[0], [1]]
    assert dealt(16, True, True) == [list(range(16)), [16, 17]]


def test_where_the_machine_has_too_little_for_all_they_run_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    without = Needs(has_model=False)
    assert LocalEngine().why_in_turn([Needs(), without, Needs()]) is None
    assert LocalEngine().why_in_turn([Needs(), without, without, without]) is None
    why = LocalEngine().why_in_turn([Needs()] * 3)
    assert why == (
        "3 workers with 1 accelerators each are more than this machine has: here are 2 accelerators"
    )
    with pytest.raises(SettingsError, match="3 workers"):
        list(LocalEngine().run_chain([Stage(Work(tmp_path), [0])] * 3))
    assert LocalEngine()._dealt([Needs(), Needs()]) == [
        (Share(0, devices=("4",)),), (Share(1, devices=("5",)),),
    ]  # fmt: skip


@given(st.lists(st.lists(st.integers(0, 9), unique=True), min_size=1, max_size=4), st.randoms())
def test_whatever_is_done_first_each_stage_gets_its_parts_after_those_before(
    stages: list[list[int]], random: object
) -> None:
    chain = Chain(stages)
    sources = {number: chain.source(number) for number in range(len(stages))}
    seen: list[list[int]] = [[] for _ in stages]
    given_out: list[tuple[int, int]] = []
    while sources or given_out:
        for number, source in list(sources.items()):
            part = next(source, "end")
            if part == "end":
                del sources[number]
            elif part is not None:
                assert all(part in seen[k] for k in range(number) if part in stages[k])
                given_out.append((number, part))
        if given_out:
            number, part = given_out.pop(random.randrange(len(given_out)))  # type: ignore[attr-defined]
            seen[number].append(part)
            chain.done(number, part)
    assert [sorted(one) for one in seen] == [sorted(one) for one in stages]
