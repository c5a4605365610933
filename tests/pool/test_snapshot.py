"""What a command that reads sees of a pool that another run writes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fakes import Run, add_scores, input_rows

from bon.errors import AccountingError, OutputError, PoolIncompleteError, PoolLockedError
from bon.pool.lock import PoolLock
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.pool.snapshot import Snapshot, unchanged


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Run(input_rows(10, bad=[3])).scores(tmp_path / "p.pool")


def test_a_pool_that_nobody_writes_to_holds_still(pool: Pool) -> None:
    snapshot = Snapshot.of(pool)
    assert list(snapshot.through([1, 2])) == [1, 2]


def test_a_second_scorer_at_work_changes_nothing_that_is_read(pool: Pool) -> None:
    snapshot = Snapshot.of(pool)
    add_scores(pool, "second", {})
    snapshot.check()


@pytest.mark.parametrize(
    "file", ["prompts/part-00001", "candidates/part-00000", "scores/reward/part-00002",
             "drops/prompts/part-00000"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["made again", "gone", "added"])
def test_what_was_complete_and_changes_is_found(pool: Pool, file: str, how: str) -> None:
    path = pool.layout.root / f"{file}.parquet"
    snapshot = Snapshot.of(pool)
    content = path.read_bytes()
    if how == "added":
        path = path.with_name("part-00009.parquet")
    else:
        path.unlink()
    if how != "gone":
        (path.parent / "other").touch()  # so that the inode is another one
        path.write_bytes(content)

    assert snapshot.has_changed()
    tables = snapshot.through([1, 2])
    assert [next(tables), next(tables)] == [1, 2]
    with pytest.raises(PoolLockedError, match="written to while it was read") as caught:
        next(tables)
    assert caught.value.where == str(pool.layout.root)
    assert caught.value.why == "the run that did so has ended"


def test_an_error_that_comes_of_the_change_is_said_to(pool: Pool) -> None:
    with (
        PoolLock(pool.layout.lock),
        pytest.raises(PoolLockedError) as caught,
        unchanged(pool),
    ):
        pool.layout.part(CANDIDATES, 1).unlink()
        raise AccountingError("rows in and rows out differ")
    assert caught.value.why.startswith("held by process ")
    assert isinstance(caught.value.__cause__, AccountingError)


@pytest.mark.parametrize("error", [AccountingError("a bug"), OutputError("disk full")])
def test_other_errors_are_what_they_are(pool: Pool, error: Exception) -> None:
    with pytest.raises(type(error)), unchanged(pool):
        if isinstance(error, OutputError):  # of the result, whatever became of the pool
            pool.layout.part(PROMPTS, 0).unlink()
        raise error


@pytest.mark.parametrize("is_held", [True, False])
def test_what_is_missing_is_being_made_only_where_somebody_does(pool: Pool, is_held: bool) -> None:
    lock = PoolLock(pool.layout.lock)
    if is_held:
        lock.__enter__()
    try:
        with pytest.raises(PoolIncompleteError) as caught, unchanged(pool):
            raise PoolIncompleteError("2 parts are missing", why="the first is 1", next_step="run")
    finally:
        lock.__exit__()
    assert caught.value.why.startswith("the first is 1")
    assert ("it is being written, held by process" in caught.value.why) is is_held
    assert caught.value.next_step == ("wait until that run has ended" if is_held else "run")
