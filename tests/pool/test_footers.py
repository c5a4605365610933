"""Footers are read once, and again once their file is another."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fakes import Run, input_rows

import bon.pool.footers as module
from bon.errors import PoolCorruptError
from bon.pipeline.ranked import open_books
from bon.pipeline.rewards import Ranking, ranked_reading
from bon.pool.footers import Footers
from bon.pool.pool import CANDIDATES, PROMPTS, Pool


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every footer that is read."""
    found: list[Path] = []
    real = module.read_footer

    def read(path: Path) -> object:
        found.append(path)
        return real(path)

    monkeypatch.setattr(module, "read_footer", read)
    return found


def test_a_command_reads_each_footer_once(tmp_path: Path, reads: list[Path]) -> None:
    Run(input_rows(40, bad=[7])).scores(tmp_path / "p")
    pool = Pool.open(tmp_path / "p")
    reads.clear()
    open_books(pool, ["reward"], None)
    assert sum(len(f.start_P) for f in ranked_reading(pool, Ranking.of("reward")).frames()) == 39
    assert sorted(reads) == sorted((tmp_path / "p").rglob("part-*.parquet"))


def test_a_part_that_is_made_again_is_read_again(tmp_path: Path) -> None:
    pool = Run(input_rows(5)).scores(tmp_path / "p")
    assert [pool.num_rows(kind, 1) for kind in (PROMPTS, CANDIDATES)] == [1, 3]
    grown = Run(input_rows(7)).scores(tmp_path / "p")
    for one in (pool, grown, grown.save(grown.manifest)):
        assert [one.num_rows(kind, 1) for kind in (PROMPTS, CANDIDATES)] == [3, 9]


def test_a_file_that_is_gone_or_damaged_is_noticed(tmp_path: Path) -> None:
    pool = Run(input_rows(3)).scores(tmp_path / "p")
    path, footers = pool.layout.part(PROMPTS, 0), Footers()
    before = footers.read(path)
    assert footers.read(path) is before
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PoolCorruptError, match="footer"):
        footers.read(path)
    path.unlink()
    for _ in range(2):
        with pytest.raises(PoolCorruptError, match="footer"):
            footers.read(path)


def test_a_pool_that_is_opened_again_reads_only_what_is_new(
    tmp_path: Path, reads: list[Path]
) -> None:
    pool = Run(input_rows(8)).candidates(tmp_path / "p")
    pool.pending(CANDIDATES)
    Run(input_rows(8)).scores(tmp_path / "p")
    reads.clear()
    again = pool.opened_again()
    assert list(again.manifest.scorers) == ["reward"]
    assert again.pending("scores/reward") == again.pending(CANDIDATES) == []
    assert reads == sorted((tmp_path / "p/scores/reward").iterdir())
