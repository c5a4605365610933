"""Names of the pool's files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bon.pool.layout import PoolLayout


def test_paths_are_those_of_the_documentation() -> None:
    layout = PoolLayout(Path("p"))
    assert layout.manifest == Path("p/pool.json")
    assert layout.lock == Path("p/.bon/lock")
    assert layout.staging == Path("p/.bon/staging")
    assert layout.log == Path("p/.bon/worker.log")
    assert layout.part("prompts", 7) == Path("p/prompts/part-00007.parquet")
    assert layout.part("scores/a", 0) == Path("p/scores/a/part-00000.parquet")
    assert layout.drops("scores/a", 0) == Path("p/drops/scores/a/part-00000.parquet")


def test_numbers_are_those_of_whole_parts_only(tmp_path: Path) -> None:
    layout = PoolLayout(tmp_path)
    assert layout.numbers("prompts") == []
    folder = tmp_path / "prompts"
    folder.mkdir()
    for name in (
        "part-00010.parquet", "part-00002.parquet", "part-100000.parquet", "part-3.parquet",
        ".part-00004.parquet.12.tmp", "part-00005.parquet.tmp", "part-00006.parquet~", "README",
    ):  # fmt: skip
        (folder / name).touch()
    assert layout.numbers("prompts") == [2, 10, 100_000]


@given(st.integers(0, 10**7))
def test_a_part_is_found_by_the_name_it_was_given(number: int) -> None:
    name = PoolLayout(Path("p")).part("prompts", number).name
    assert int(name.removeprefix("part-").removesuffix(".parquet")) == number
    assert len(name) >= len("part-00000.parquet")


def test_scorers_are_those_with_a_part(tmp_path: Path) -> None:
    layout = PoolLayout(tmp_path)
    assert layout.scorer_names() == []
    for name in ("b", "a", "empty", ".ipynb_checkpoints"):
        (tmp_path / "scores" / name).mkdir(parents=True)
    for name in ("b", "a"):
        layout.part(f"scores/{name}", 0).touch()
    (tmp_path / "scores" / "notes.txt").touch()
    assert layout.scorer_names() == ["a", "b"]
