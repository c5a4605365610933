"""Every kind of damage to every kind of file: named, set aside, made again to the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import pool_files
from support.damage import flip_bit, pool_as_older, swap, truncate
from support.fakes import FakeGenerator, FakeScorer, Run, ignore, input_rows, prompt
from support.ranked import ranked_prompts

from bon.errors import (
    OutputError,
    PoolCorruptError,
    PoolIncompleteError,
    SettingsMismatchError,
    SystemFaultError,
)
from bon.pipeline.plans import ScoringPlan
from bon.pipeline.ranked import open_books
from bon.pipeline.repair import Damage, restore_manifest, set_damaged_aside
from bon.pipeline.rewards import Ranking
from bon.pipeline.run import refuse_incomplete, score
from bon.pool.layout import PoolLayout
from bon.pool.pool import CANDIDATES, PROMPTS, Pool

SCORES = "scores/reward"
KINDS = (PROMPTS, CANDIDATES, SCORES)
DROPS = tuple(f"drops/{kind}" for kind in KINDS)
NOTHING = {"p0": [1.0, None, 2.0], "p4": [None, 3.0, 4.0], "p9": [1.0, None, None]}


def a_run(**other: object) -> Run:
    """Three parts, each of them with rows, prompts and candidates that were dropped."""
    run = Run(
        input_rows(12, bad=[1, 5, 10]),
        generator=FakeGenerator(too_long=frozenset({"p2", "p7", "p11"})),
        scorer=FakeScorer(NOTHING),
    )
    return replace(run, **other)


def foreign(root: Path, kind: str) -> Pool:
    """A pool that differs from `a_run`'s in nothing but what this kind holds."""
    if kind == PROMPTS:
        rows = a_run().rows
        rows[6] = prompt(6, "another question", answer=6, tags=["t6"])
        return a_run(rows=rows).scores(root)
    if kind == CANDIDATES:
        return a_run(seed=1).scores(root)
    if kind == SCORES:
        pool = a_run().candidates(root)
        plan = ScoringPlan("reward", FakeScorer(NOTHING), {"spec": "another"})
        score(pool, plan, a_run().engine, None, ignore)
        return Pool.open(root)
    rows = a_run().rows
    rows[5] = replace(rows[5], detail="it is something else")  # type: ignore[type-var]
    generator = FakeGenerator(too_long=frozenset({"p4", "p11"}))
    return a_run(rows=rows, generator=generator, scorer=FakeScorer({"p6": [None] * 3})).scores(root)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good") / "a.pool"
    a_run().scores(root)
    return root


@pytest.fixture
def root(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "a.pool"))


def bit_in_a_page(path: Path, other: Path) -> None:
    flip_bit(path, 60)


def bit_in_the_footer(path: Path, other: Path) -> None:
    flip_bit(path, path.stat().st_size - 200)


def cut_off(path: Path, other: Path) -> None:
    truncate(path)


def of_no_bytes(path: Path, other: Path) -> None:
    truncate(path, 0)


def swapped(path: Path, other: Path) -> None:
    swap(path, path.with_name("part-00002.parquet"))


def of_another_pool(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def missing(path: Path, other: Path) -> None:
    path.unlink()


DAMAGES = (
    bit_in_a_page, bit_in_the_footer, cut_off, of_no_bytes, swapped, of_another_pool, missing
)  # fmt: skip
Do = Callable[[Path, Path], None]


def damage(root: Path, folder: str, do: Do, tmp_path: Path) -> Path:
    """Do this to part 1 of a folder, and return its file."""
    path = root / folder / "part-00001.parquet"
    other = foreign(tmp_path / "other", folder).layout.root / folder / "part-00001.parquet"
    assert other.read_bytes() != path.read_bytes()
    do(path, other)
    return path


def read_all(root: Path) -> None:
    """Read what `bon select` reads."""
    pool = Pool.open(root)
    for kind in (CANDIDATES, SCORES):
        refuse_incomplete(pool, kind, None)
    open_books(pool, ["reward"], None)
    list(ranked_prompts(pool, Ranking.of("reward"), None))


def repaired(root: Path) -> list[Damage]:
    """Do what a command does with --repair."""
    found = set_damaged_aside(Pool.open(root), KINDS, None, lambda number, all_: None)
    a_run().scores(root)
    return found


def inodes(root: Path) -> dict[str, int]:
    return {name: (root / name).stat().st_ino for name in pool_files(root)}


@pytest.mark.parametrize("do", DAMAGES, ids=lambda do: do.__name__)
@pytest.mark.parametrize("folder", KINDS + DROPS)
def test_damage_is_named_and_made_again(
    root: Path, good: Path, folder: str, do: Do, tmp_path: Path
) -> None:
    path = damage(root, folder, do, tmp_path)
    kind = folder.removeprefix("drops/")
    with pytest.raises((PoolCorruptError, PoolIncompleteError)) as caught:
        read_all(root)
    is_lost_part = do is missing and folder == kind
    if isinstance(caught.value, PoolCorruptError):
        second = path.with_name("part-00002.parquet")
        # what was made of other prompts than those that are there is seen where it is read
        made_of_it = [root / CANDIDATES / path.name] if kind == PROMPTS else []
        made_of_it += [root / SCORES / path.name] if kind == CANDIDATES else []
        assert caught.value.where in map(str, [path, second, *made_of_it])
        assert "--repair" in caught.value.next_step
    else:
        assert is_lost_part
        assert "run the command that made" in caught.value.next_step.replace("makes", "made")

    before = inodes(root)
    found = repaired(root)

    assert pool_files(root) == pool_files(good), "as if nothing had happened"
    wanted = set() if is_lost_part else {(kind, 1)} | ({(kind, 2)} if do is swapped else set())
    assert {(one.kind, one.part) for one in found} == wanted
    for one in found:
        assert one.moved_to is not None
        assert one.why
        assert (root / one.moved_to).is_file()
    again = {(kind, part) for part in ({1, 2} if do is swapped else {1})}
    if kind == CANDIDATES:
        again |= {(SCORES, part) for _, part in again}
    names = {f"{start}{k}/part-{part:05d}.parquet" for k, part in again for start in ("", "drops/")}
    changed = {name for name, inode in inodes(root).items() if before.get(name) != inode}
    assert changed <= names, "nothing else is made again"


@pytest.mark.parametrize("do", [bit_in_a_page, cut_off, of_no_bytes, missing])
@pytest.mark.parametrize("folder", KINDS)
def test_pools_of_older_versions_are_repaired_too(root: Path, folder: str, do: Do) -> None:
    pool_as_older(root)
    content = {kind: Pool.open(root).read(kind, 1) for kind in KINDS}
    do(root / folder / "part-00001.parquet", root)
    repaired(root)
    assert all(Pool.open(root).read(kind, 1).equals(table) for kind, table in content.items())


def test_a_whole_pool_is_left_as_it_is(root: Path) -> None:
    before, seen = inodes(root), []
    assert set_damaged_aside(Pool.open(root), KINDS, None, lambda *n: seen.append(n)) == []
    assert seen == [(9, number) for number in range(9)]
    assert inodes(root) == before
    pool_as_older(root)
    assert set_damaged_aside(Pool.open(root), KINDS, None, lambda *_: None) == []


def test_what_nobody_makes_again_stays_in_its_place(root: Path) -> None:
    flip_bit(root / SCORES / "part-00000.parquet", 60)
    flip_bit(root / CANDIDATES / "part-00002.parquet", 60)
    found = set_damaged_aside(Pool.open(root), [CANDIDATES], None, lambda *_: None)
    assert [(one.kind, one.part, bool(one.moved_to)) for one in found] == [
        (CANDIDATES, 2, True),
        (SCORES, 0, False),
    ]
    assert (root / SCORES / "part-00000.parquet").exists()
    assert found[0].as_json()["file"] == "candidates/part-00002.parquet"


def cannot_read(monkeypatch: pytest.MonkeyPatch, number: int, *names: str) -> None:
    """Let the system refuse to open files of these names."""
    opened = Path.open

    def refuse(self: Path, *more: Any, **other: Any) -> Any:
        if str(self).endswith(names):
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, *more, **other)

    monkeypatch.setattr(Path, "open", refuse)


@pytest.mark.parametrize("folder", KINDS + DROPS)
def test_a_file_that_the_disk_has_lost_is_damaged(
    root: Path, good: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Bad sectors cannot be had on demand."""
    name = f"{folder}/part-00001.parquet"
    with monkeypatch.context() as patch:
        cannot_read(patch, errno.EIO, f"a.pool/{name}")
        (found,) = set_damaged_aside(Pool.open(root), KINDS, None, lambda *_: None)
    assert (found.file, found.why) == (name, "Input/output error")
    a_run().scores(root)
    assert pool_files(root) == pool_files(good)


def test_two_files_that_the_disk_has_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        names = [f"a.pool/{kind}/part-00001.parquet" for kind in (PROMPTS, CANDIDATES)]
        cannot_read(patch, errno.EIO, *names)
        found = set_damaged_aside(Pool.open(root), KINDS, None, lambda *_: None)
    assert [(one.kind, one.part) for one in found] == [(PROMPTS, 1), (CANDIDATES, 1)]


@pytest.mark.parametrize(
    ("number", "names"), [(errno.EIO, ("parquet", "json")), (errno.EMFILE, ("parquet",))]
)
def test_a_fault_of_the_whole_system_is_no_damage(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, names: tuple[str, ...]
) -> None:
    pool, before = Pool.open(root), inodes(root)
    cannot_read(monkeypatch, number, *names)
    with pytest.raises(SystemFaultError) as caught:
        set_damaged_aside(pool, KINDS, None, lambda *_: None)
    assert caught.value.why == os.strerror(number)
    monkeypatch.undo()
    assert inodes(root) == before


def test_where_a_damaged_file_cannot_be_moved_it_is_named(root: Path) -> None:
    path = root / SCORES / "part-00000.parquet"
    flip_bit(path, 60)
    (root / ".bon/damaged").write_text("in the way")
    with pytest.raises(OutputError, match="a damaged file cannot be moved") as caught:
        set_damaged_aside(Pool.open(root), KINDS, None, lambda *_: None)
    assert caught.value.where in (str(path), str(root / "drops" / SCORES / path.name))


def test_parts_behind_the_limit_are_not_looked_at(root: Path) -> None:
    flip_bit(root / CANDIDATES / "part-00002.parquet", 60)
    assert set_damaged_aside(Pool.open(root), KINDS, 8, lambda *_: None) == []
    assert len(set_damaged_aside(Pool.open(root), KINDS, 9, lambda *_: None)) == 1


def test_a_second_repair_keeps_what_the_first_one_moved(root: Path) -> None:
    name = "candidates/part-00001.parquet"
    for _ in range(3):
        flip_bit(root / name, 60)
        repaired(root)
    moved = sorted(p.name for p in (root / ".bon/damaged/candidates").iterdir())
    assert moved == [f"part-00001.parquet{end}" for end in ("", ".2", ".3")]


def test_prompts_that_are_read_again_must_be_those_that_were_sampled_for(root: Path) -> None:
    truncate(root / PROMPTS / "part-00001.parquet")
    set_damaged_aside(Pool.open(root), KINDS, None, lambda *_: None)
    rows = a_run().rows
    rows[6] = prompt(6, "another question", answer=6, tags=["t6"])
    with pytest.raises(SettingsMismatchError) as caught:
        a_run(rows=rows).scores(root)
    assert "part 1 of candidates" in caught.value.why
    assert "was sampled for other prompts" in caught.value.why
    assert not (root / PROMPTS / "part-00001.parquet").exists()
    a_run().scores(root)


def test_a_lost_last_part_comes_back_with_an_input_that_grew(root: Path, tmp_path: Path) -> None:
    longer = input_rows(14, bad=[1, 5, 10])
    run = a_run(rows=longer)
    (root / PROMPTS / "part-00002.parquet").unlink()
    run.scores(root)
    whole = tmp_path / "whole"
    a_run(rows=longer).scores(whole)
    assert pool_files(root) == pool_files(whole)
    assert {r.prompt_id for r in run.generator.requests} == {"p12", "p13"}, "no other is sampled"


@pytest.mark.parametrize("content", [None, b"", b'{"format_version": 1}', "flip"])
def test_pool_json_comes_back_from_its_copy(root: Path, content: bytes | str | None) -> None:
    path = root / "pool.json"
    good = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        wrong = good.replace(b'"seed": 0', b'"seed": 1') if content == "flip" else content
        path.write_bytes(wrong)  # type: ignore[arg-type]
    with pytest.raises(PoolCorruptError, match=r"pool\.json") as caught:
        Pool.open(root)
    assert "--repair" in caught.value.next_step
    assert restore_manifest(PoolLayout(root)) is not None
    assert restore_manifest(PoolLayout(root)) is None
    assert path.read_bytes() == good


def test_two_damaged_pool_jsons_are_an_error_that_says_so(root: Path) -> None:
    for path in (root / "pool.json", root / ".bon" / "pool.json"):
        path.write_text("{")
    with pytest.raises(PoolCorruptError) as caught:
        restore_manifest(PoolLayout(root))
    assert "--repair" not in caught.value.next_step
