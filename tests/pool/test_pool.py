"""Commits of parts: killed on the way, damaged later, grown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.commands import pool_files
from support.fakes import Run, input_rows
from support.killed_commit import DROP, ROWS, STEPS, commit, pool_at

from bon.errors import PoolCorruptError, PoolNotFoundError
from bon.pool.pool import CANDIDATES, PROMPTS, Pool, scores_kind
from bon.records import CANDIDATES_SCHEMA

TESTS = Path(__file__).parent.parent


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Ten input rows, one of them bad, in parts of four, with candidates and scores."""
    return Run(input_rows(10, bad=[5])).scores(tmp_path / "a.pool")


def test_open_without_a_pool(tmp_path: Path) -> None:
    with pytest.raises(PoolNotFoundError):
        Pool.open(tmp_path)


@pytest.mark.parametrize("step", STEPS)
def test_kill_on_the_way_of_a_commit_leaves_a_whole_part_or_none(tmp_path: Path, step: str) -> None:
    clean = pool_at(tmp_path / "clean")
    commit(clean)
    root = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-m", "support.killed_commit", root, step],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL

    pool = Pool.open(root)
    expected = {
        "before": {"pool.json"}, "half": {"pool.json"}, "staged": {"pool.json"},
        "between": {"pool.json", "drops/candidates/part-00000.parquet"},
        "committed": set(pool_files(clean.layout.root)),
    }  # fmt: skip
    left = pool_files(root)
    assert set(left) == expected[step]
    assert left.items() <= pool_files(clean.layout.root).items(), "nothing is half-written"
    assert pool.layout.numbers(CANDIDATES) == ([0] if step == "committed" else [])
    assert list(pool.read_drops(CANDIDATES)) == ([DROP] if step == "committed" else [])

    commit(pool)

    assert pool_files(root) == pool_files(clean.layout.root)
    assert list(pool.layout.staging.iterdir()) == []


def test_commit_reads_back(tmp_path: Path) -> None:
    pool = pool_at(tmp_path)
    commit(pool)
    assert pool.read(CANDIDATES, 0).to_pylist() == ROWS
    assert pool.read(CANDIDATES, 0, ["candidate", "seed"]).num_columns == 2
    assert pool.covers(CANDIDATES, 0) == 51
    assert pool.drops(CANDIDATES, 0) == [DROP]


def test_commit_without_drops_removes_those_of_an_earlier_try(tmp_path: Path) -> None:
    pool = pool_at(tmp_path)
    commit(pool)
    pool.commit(CANDIDATES, 0, pa.Table.from_pylist([], CANDIDATES_SCHEMA), [], covers=0)
    assert list(pool.read_drops(CANDIDATES)) == []
    assert not pool.layout.drops(CANDIDATES, 0).exists()


@pytest.mark.parametrize("kind", [PROMPTS, CANDIDATES, scores_kind("reward")])
def test_flipped_bit_is_detected_in_every_kind(pool: Pool, kind: str) -> None:
    path = pool.layout.part(kind, 1)
    column = pq.read_metadata(path).row_group(0).column(0)
    damaged = bytearray(path.read_bytes())
    damaged[(column.dictionary_page_offset or column.data_page_offset) + 40] ^= 16
    path.write_bytes(damaged)

    with pytest.raises(PoolCorruptError) as caught:
        pool.read(kind, 1)

    assert caught.value.where == str(path)
    assert "only this part is redone" in caught.value.next_step
    assert pool.read(kind, 0).num_rows > 0


@pytest.mark.parametrize("kind", [PROMPTS, CANDIDATES])
def test_truncated_part_is_detected_where_work_is_planned(pool: Pool, kind: str) -> None:
    path = pool.layout.part(kind, 1)
    os.truncate(path, path.stat().st_size - 3)
    with pytest.raises(PoolCorruptError, match="footer") as caught:
        pool.pending(CANDIDATES)
    assert caught.value.where == str(path)
    assert "--repair" in caught.value.next_step


def test_part_without_its_footer_note_is_corrupt(pool: Pool) -> None:
    path = pool.layout.part(CANDIDATES, 0)
    pq.write_table(pool.read(CANDIDATES, 0).replace_schema_metadata(None), path)
    with pytest.raises(PoolCorruptError, match="footer"):
        pool.covers(CANDIDATES, 0)


def test_damaged_drops_advise_to_redo_their_part(pool: Pool) -> None:
    path = pool.layout.drops(PROMPTS, 1)
    path.write_bytes(b"PAR1")

    with pytest.raises(PoolCorruptError) as caught:
        list(pool.read_drops(PROMPTS))

    assert caught.value.where == str(path)
    assert "--repair" in caught.value.next_step
    before = pool_files(pool.layout.root)
    path.unlink()
    pool.layout.part(PROMPTS, 1).unlink()
    Run(input_rows(10, bad=[5])).scores(pool.layout.root)
    after = pool_files(pool.layout.root)
    assert after.keys() == before.keys()
    assert len(list(pool.read_drops(PROMPTS))) == 1


def test_pending_lists_missing_and_grown_parts(pool: Pool) -> None:
    assert pool.pending(CANDIDATES) == pool.pending("scores/reward") == []
    assert pool.pending("scores/new") == [0, 1, 2]
    pool.layout.part(CANDIDATES, 1).unlink()
    assert pool.pending(CANDIDATES) == [1]
    grown = Run(input_rows(11, bad=[5])).prompts(pool.layout.root)
    assert grown.pending(CANDIDATES) == [1, 2]
    assert grown.pending("scores/reward") == [2]


def test_covers_counts_rows_of_prompts_and_prompts_of_the_rest(pool: Pool) -> None:
    assert [pool.covers(PROMPTS, part) for part in range(3)] == [4, 4, 2]
    assert [pool.covers(CANDIDATES, part) for part in range(3)] == [4, 3, 2]
    assert [pool.num_prompts(part) for part in range(3)] == [4, 3, 2]


def test_prompts_come_back_as_they_went_in(pool: Pool) -> None:
    prompts = [prompt for part in range(3) for prompt in pool.prompts(part)]
    assert prompts == [row for row in input_rows(10) if row.row != 5]
