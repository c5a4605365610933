"""Every single bit of a pool's files, flipped: what is read is what was written, or an error."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.fakes import FakeGenerator, FakeScorer, Run, input_rows

from bon.errors import PoolCorruptError
from bon.pool.files import check_whole
from bon.pool.manifest import read_manifest
from bon.pool.pool import CANDIDATES, PROMPTS, Pool

KINDS = (PROMPTS, CANDIDATES, "scores/reward")
FILES = (*KINDS, *(f"drops/{kind}" for kind in KINDS))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with dropped rows, prompts and candidates."""
    root = tmp_path_factory.mktemp("good") / "a.pool"
    run = Run(
        input_rows(6, bad=[1]),
        generator=FakeGenerator(too_long=frozenset({"p2"})),
        scorer=FakeScorer({"p0": [1.0, None, 2.0]}),
    )
    run.scores(root)
    return root


def read(root: Path, kind: str) -> tuple[Any, ...]:
    """Read all that a part gives, with nothing remembered from before."""
    pool = Pool.open(root)
    table = pool.read(kind, 0)
    return table, pool.drops(kind, 0), pool.covers(kind, 0), pool.num_rows(kind, 0)


def flip_and_read(root: Path, folder: str, bits: list[int]) -> int:
    """Flip these bits one after another and return how many of them were noticed."""
    kind, path = folder.removeprefix("drops/"), root / folder / "part-00000.parquet"
    wanted, content = read(root, kind), path.read_bytes()
    num_noticed = 0
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read(root, kind)
        except PoolCorruptError as error:
            num_noticed += 1
            assert error.where == str(path)
            assert "--repair" in error.next_step
        else:
            assert found == wanted, f"bit {bit} of {len(content) * 8} went through"
        with pytest.raises(PoolCorruptError):
            check_whole(path)  # what --repair reads sees every bit
            read(root, kind)
    path.write_bytes(content)
    return num_noticed


@pytest.mark.parametrize("folder", FILES)
def test_some_bits(good: Path, tmp_path: Path, folder: str) -> None:
    root = Path(shutil.copytree(good, tmp_path / "a.pool"))
    size = (root / folder / "part-00000.parquet").stat().st_size
    bits = random.Random(folder).sample(range(size * 8), 250)
    assert flip_and_read(root, folder, bits) >= 220, "the rest is what pages say that nobody reads"


@pytest.mark.faults
@pytest.mark.parametrize("folder", FILES)
def test_every_bit(good: Path, tmp_path: Path, folder: str) -> None:
    root = Path(shutil.copytree(good, tmp_path / "a.pool"))
    size = (root / folder / "part-00000.parquet").stat().st_size
    assert flip_and_read(root, folder, list(range(size * 8))) >= 0.88 * size * 8


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.faults)])
def test_bits_of_pool_json(good: Path, tmp_path: Path, step: int) -> None:
    path = tmp_path / "pool.json"
    content, wanted = (good / "pool.json").read_bytes(), read_manifest(good / "pool.json")
    bits = range(0, len(content) * 8, step)
    num_noticed = 0
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert read_manifest(path) == wanted, f"bit {bit} went through"
        except PoolCorruptError as error:
            assert error.where == str(path)
            num_noticed += 1
    assert num_noticed > 0.8 * len(bits), "only spaces between words are no content"
