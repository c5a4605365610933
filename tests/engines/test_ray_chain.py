"""Stages side by side on a real cluster: a part goes on to the next one as soon as it is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chained import Follows, Waits
from support.ray_cluster import RayCluster, is_alive, ray_cluster
from support.ray_engine import done, ray_engine
from support.started import wait_until
from support.works import Deadly, Work

from bon.engines.ray import RayEngine
from bon.engines.ray_blocks import ROWS, small
from bon.engines.ray_cluster import RayWorkers
from bon.errors import PoolCorruptError
from bon.protocols import Event, Needs, Restarted, Stage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(4) as started:
        yield started


@pytest.fixture
def engine(cluster: RayCluster, tmp_path: Path) -> Iterator[RayEngine]:
    with ray_engine(cluster, tmp_path, 1) as started:
        yield started


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Where the parts of two stages are."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def done_in(events: list[tuple[int, Event]], stage: int) -> list[int]:
    return done(one for number, one in events if number == stage)


@pytest.mark.parametrize("has_model", [True, False])
def test_a_part_is_in_the_second_stage_before_the_last_one_is_in_the_first(
    engine: RayEngine, tmp_path: Path, folders: tuple[Path, Path], has_model: bool
) -> None:
    one, two = folders
    (one / "part-9").touch()  # done before
    first, second = [0, 1, 2, 3], [0, 1, 2, 3, 9]
    stages = [Stage(Waits(one, two), first), Stage(Follows(two, one), second, Needs(has_model))]
    events = list(engine.run_chain(stages))
    assert done_in(events, 0) == first
    assert done_in(events, 1) == second
    logs = sorted(path.name for path in (tmp_path / ".bon").glob("*.log"))
    assert logs == ["worker-stage-2.log", "worker.log"]


def test_prompts_that_kill_a_stage_are_found(engine: RayEngine, folders: tuple[Path, Path]) -> None:
    one, two = folders
    stages = [
        Stage(Work(one), range(4)),
        Stage(Deadly(two, frozenset({"1-3"})), range(4)),
    ]
    events = list(engine.run_chain(stages))
    assert {number for number, event in events if isinstance(event, Restarted)} == {1}
    assert done_in(events, 0) == done_in(events, 1) == [0, 1, 2, 3]
    kept = [one for part in range(4) for one in (two / f"part-{part}").read_text().split()]
    assert len(kept) == 4 * 8 - 1
    assert "1-3" not in kept


def test_an_error_of_one_stage_ends_all(engine: RayEngine, folders: tuple[Path, Path]) -> None:
    one, two = folders
    stages = [
        Stage(Work(one, "bon_error", at=1), range(3)),
        Stage(Work(two), range(3)),
    ]
    with pytest.raises(PoolCorruptError) as caught:
        list(engine.run_chain(stages))
    assert (caught.value.what, caught.value.next_step) == ("bad part", "delete it")
    assert not (two / "part-1").exists()
    pids = [int(pid) for path in (one, two) if (path / "pids").exists()
            for pid in (path / "pids").read_text().split()]  # fmt: skip
    wait_until(lambda: not any(map(is_alive, pids)))


def test_where_the_cluster_has_too_little_for_all_they_run_in_turn(cluster: RayCluster) -> None:
    four = [Needs(), Needs(), Needs(), Needs(has_model=False)]
    with RayEngine(cluster.address, RayWorkers(2, 2, cpus=1)) as engine:
        assert engine.why_in_turn([Needs(), *four[2:]]) is None
        why = engine.why_in_turn(four)
        assert why == "all stages together need 5 CPUs, the cluster has 4"
    with RayEngine(cluster.address, RayWorkers(1, 8, cpus=1)) as engine:
        assert engine.why_in_turn(four) is None, "so many can start"


def test_blocks_of_stages_side_by_side_are_parts_or_a_few() -> None:
    blocks = small([range(2, 4), range(5)])
    assert all(one.schema == ROWS for one in blocks)
    rows = [[(row["stage"], row["part"]) for row in one["parts"][0].as_py()] for one in blocks]
    assert rows == [[(1, 0)], [(1, 1)], [(0, 2), (1, 2)], [(0, 3), (1, 3)], [(1, 4)]]
    many = small([range(100_001), range(50)])
    assert len(many) <= 4_000
    assert sum(len(one["parts"][0]) for one in many) == 100_051
