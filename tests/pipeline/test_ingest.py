"""Prompts into the pool: parts by input row, growth, and the refusal of a changed input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import pool_files
from support.fakes import FakeSource, Run, bad_row, input_rows, prompt

import bon.pool.files
from bon.errors import SettingsMismatchError
from bon.pipeline.ingest import ingest
from bon.pipeline.ranked import open_books
from bon.pool.layout import PoolLayout
from bon.pool.manifest import Manifest
from bon.pool.pool import PROMPTS, Pool
from bon.records import Drop, Prompt

Rows = list[Prompt | Drop]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    manifest = Manifest(part_size=4, input={})
    return Pool(PoolLayout(tmp_path), manifest).save(manifest)


def test_parts_are_cut_by_input_row_and_drops_counted_with_their_part(pool: Pool) -> None:
    rows = input_rows(11, bad=[0, 4, 5, 6, 7])
    assert ingest(pool, rows, None) == 11
    assert [[p.row for p in pool.prompts(part)] for part in range(3)] == [[1, 2, 3], [], [8, 9, 10]]
    assert [pool.covers(PROMPTS, part) for part in range(3)] == [4, 4, 3]
    assert [[d.row for d in pool.drops(PROMPTS, part)] for part in range(3)] == [
        [0], [4, 5, 6, 7], [],
    ]  # fmt: skip
    assert pool.drops(PROMPTS, 0) == [rows[0]]


def test_no_rows(pool: Pool) -> None:
    assert ingest(pool, [], None) == 0
    assert pool.layout.numbers(PROMPTS) == []


@pytest.mark.parametrize("old_rows", [1, 3, 4, 5, 8])
def test_growth_at_the_end_extends_the_last_part(pool: Pool, tmp_path: Path, old_rows: int) -> None:
    rows = input_rows(9, bad=[2, 7])
    ingest(pool, rows[:old_rows], None)
    untouched = {p: pool.layout.part(PROMPTS, p).stat().st_ino for p in range(old_rows // 4)}

    assert ingest(pool, rows, None) == 9

    direct = Pool(PoolLayout(tmp_path / "direct"), pool.manifest).save(pool.manifest)
    ingest(direct, rows, None)
    assert pool_files(direct.layout.root).items() <= pool_files(pool.layout.root).items()
    for part, node in untouched.items():
        assert pool.layout.part(PROMPTS, part).stat().st_ino == node


def test_same_rows_again_write_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(pool, input_rows(6, bad=[5]), None)
    monkeypatch.setattr(bon.pool.files.pq, "write_table", None)
    assert ingest(pool, input_rows(6, bad=[5]), None) == 6


def test_kill_between_drops_and_part_of_a_growing_part_heals(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(pool, input_rows(6), None)
    grown = input_rows(8, bad=[7])
    rename = Path.replace

    def die_before_the_part(self: Path, target: Path) -> Path:
        if "drops" not in target.parts:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", die_before_the_part)
        ingest(pool, grown, None)

    assert pool.layout.drops(PROMPTS, 1).exists()
    assert list(pool.read_drops(PROMPTS)) == [], "the old part does not cover that row"
    assert ingest(pool, grown, None) == 8
    assert list(pool.read_drops(PROMPTS)) == [grown[7]]


def swapped(rows: Rows) -> Rows:
    return [*rows[:1], replace(rows[2], row=1), replace(rows[1], row=2), *rows[3:]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda rows: [*rows[:5], prompt(5, "other", **rows[5].extra), *rows[6:]],
         "in.jsonl:6 differs: its prompt was"),
        (lambda rows: [*rows[:5], prompt(5, answer=9, tags=["t5"]), *rows[6:]],
         "in.jsonl:6 differs: its other was"),
        (lambda rows: [*rows[:5], replace(rows[5], prompt_id="new"), *rows[6:]],
         'in.jsonl:6 differs: its id was "p5", now "new"'),
        (lambda rows: [*rows[:5], bad_row(5), *rows[6:]], "in.jsonl:6 differs: its id was"),
        (lambda rows: [*rows[:3], prompt(3), *rows[4:]],
         'in.jsonl:4 differs: its id was "", now "p3"'),
        (swapped, 'in.jsonl:3 differs: its id was "p1", now "p2"'),
        (lambda rows: [prompt(0, "new first"), *rows], "in.jsonl:1 differs"),
        (lambda rows: rows[:9], "the input ends after in.jsonl:9; the pool has more rows"),
        (lambda rows: rows[:8], "the input ends after 8 rows; the pool has more"),
        (lambda rows: [], "the input ends after 0 rows"),
    ],
)  # fmt: skip
def test_changed_reordered_or_shrunk_input_is_refused_by_row(
    pool: Pool, change: object, named: str
) -> None:
    rows = input_rows(10, bad=[3])
    ingest(pool, rows, None)
    before = pool_files(pool.layout.root)

    with pytest.raises(SettingsMismatchError) as caught:
        ingest(pool, change(list(rows)), None)  # type: ignore[operator]

    assert named in caught.value.why
    assert caught.value.where == str(pool.layout.root)
    assert "--pool" in caught.value.next_step
    assert pool_files(pool.layout.root) == before


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 6, 9])
def test_smaller_limit_is_a_view(pool: Pool, limit: int) -> None:
    rows = input_rows(10)
    ingest(pool, rows, None)
    before = pool_files(pool.layout.root)
    assert ingest(pool, FakeSource(rows, limit), limit) == limit
    assert pool_files(pool.layout.root) == before


def test_input_that_ends_before_the_limit_and_the_pool_is_refused(pool: Pool) -> None:
    ingest(pool, input_rows(10), None)
    with pytest.raises(SettingsMismatchError):
        ingest(pool, input_rows(5), 8)


def test_missing_middle_part_is_read_again(pool: Pool) -> None:
    ingest(pool, input_rows(10, bad=[5]), None)
    before = pool_files(pool.layout.root)
    pool.layout.part(PROMPTS, 1).unlink()
    ingest(pool, input_rows(10, bad=[5]), None)
    assert pool_files(pool.layout.root) == before


def test_a_lost_part_and_a_limit_within_it_is_told_as_that(tmp_path: Path) -> None:
    rows = input_rows(10)
    whole = pool_files(Run(rows).candidates(tmp_path).layout.root)
    (tmp_path / PROMPTS / "part-00002.parquet").unlink()
    before = pool_files(tmp_path)
    with pytest.raises(SettingsMismatchError, match="prompts of part 2 are lost") as caught:
        Run(rows, limit=9).candidates(tmp_path)
    assert pool_files(tmp_path) == before
    limit = int(caught.value.next_step.rpartition(" ")[2])
    Run(rows, limit=limit).candidates(tmp_path)
    assert pool_files(tmp_path) == whole


@pytest.mark.parametrize("limits", [(5, 9), (4, 9), (3, 4, 5, 9), (8, 9, None)])
def test_growing_limit_equals_a_direct_run_in_every_byte(
    tmp_path: Path, limits: tuple[int | None, ...]
) -> None:
    """Nothing is left out but `.bon/`: rows and limit in pool.json are the last run's too."""
    rows = input_rows(10, bad=[2, 8])
    for limit in limits:
        run = Run(rows, limit=limit)
        run.scores(tmp_path / "grown")
    Run(rows, limit=limits[-1]).scores(tmp_path / "direct")
    assert pool_files(tmp_path / "grown") == pool_files(tmp_path / "direct")
    assert len({r.prompt_id for r in run.generator.requests}) < 5, "only what is new is sampled"
    open_books(Pool.open(tmp_path / "grown"), ["reward"], None)
