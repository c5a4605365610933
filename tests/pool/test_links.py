from __future__ import annotations

from pathlib import Path

import pytest

from bon.errors import OutputError
from bon.pool.layout import PoolLayout
from bon.pool.links import refuse_links
from bon.pool.lock import PoolLock

FOLDERS = ("prompts", "candidates", "scores/r", "drops/prompts", "drops/scores/r", ".bon/staging")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    root = tmp_path / "a.pool"
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    for name in ("pool.json", ".bon/lock", ".bon/worker.log", "scores/r/part-00000.parquet"):
        (root / name).write_bytes(b"")
    return root


def test_a_pool_without_links_is_taken_and_may_be_one_itself(pool: Path, tmp_path: Path) -> None:
    refuse_links(pool)
    link = tmp_path / "link.pool"
    link.symlink_to(pool)
    refuse_links(link)
    refuse_links(tmp_path / "not there")


@pytest.mark.parametrize(
    "name",
    [*FOLDERS, "scores", "drops", ".bon", "pool.json", ".bon/lock", ".bon/worker.log"],
)
def test_a_link_that_would_be_written_through_is_refused_and_followed_by_nobody(
    name: str, pool: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "precious"
    (pool / name).rename(outside)
    if outside.is_dir():
        (outside / "file").write_text("mine")
    else:
        outside.write_text("mine")
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    (pool / name).symlink_to(outside)
    with (
        pytest.raises(OutputError, match="symbolic link") as caught,
        PoolLock(PoolLayout(pool).lock),
    ):
        pytest.fail("it was locked")
    assert caught.value.where == str(pool / name)
    assert str(outside) in caught.value.why
    assert before == {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    assert outside.is_dir() or outside.read_text() == "mine"
