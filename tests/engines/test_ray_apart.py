"""The process that talks to Ray: one for all that a run has to do, and it leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ray_cluster import RayCluster, all_below, is_alive, ray_cluster
from support.ray_engine import done
from support.started import wait_until
from support.works import Work

from bon.engines.ray import RayEngine
from bon.engines.ray_apart import RayApart
from bon.engines.ray_cluster import RayWorkers
from bon.errors import PoolCorruptError
from bon.protocols import Needs, PartDone, Stage

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(3) as started:
        yield started


def apart(address: str | None, folder: Path) -> RayApart:
    (folder / ".bon").mkdir()
    return RayApart(RayEngine(address, RayWorkers(1, 1, 0, 1), folder / ".bon" / "worker.log"))


def talkers() -> list[int]:
    return [pid for pid, said in all_below(os.getpid()).items() if "spawn_main" in said]


def test_one_process_answers_all(cluster: RayCluster, tmp_path: Path) -> None:
    with apart(cluster.address, tmp_path) as engine:
        assert list(engine.run(Work(tmp_path), [])) == []
        assert not talkers(), "for nothing none is started"
        assert engine.why_in_turn([Needs(), Needs(), Needs(has_model=False)]) is None
        why = engine.why_in_turn([Needs()] * 4)
        assert why == "all stages together need 4 CPUs, the cluster has 3"
        (first,) = talkers()
        assert done(engine.run(Work(tmp_path), range(3))) == [0, 1, 2]
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        stages = [Stage(Work(tmp_path / name), [0, 1]) for name in ("one", "two")]
        both = [(n, one.part) for n, one in engine.run_chain(stages) if isinstance(one, PartDone)]
        assert sorted(both) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert talkers() == [first]
    assert not talkers()


def test_after_an_error_another_begins(cluster: RayCluster, tmp_path: Path) -> None:
    with apart(cluster.address, tmp_path) as engine:
        with pytest.raises(PoolCorruptError):
            list(engine.run(Work(tmp_path, "bon_error", at=1), range(3)))
        assert not talkers()
        assert done(engine.run(Work(tmp_path), [0])) == [0]


def test_one_who_looks_away_stops_it(cluster: RayCluster, tmp_path: Path) -> None:
    with apart(cluster.address, tmp_path) as engine:
        events = engine.run(Work(tmp_path, "hang", at=3), range(5))  # two blocks come at once
        assert any(isinstance(event, PartDone) for event in events)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        events.close()  # type: ignore[attr-defined]
        assert not talkers()
        wait_until(lambda: not any(map(is_alive, pids)))


def test_a_cluster_of_our_own_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    before = set(all_below(os.getpid()))
    with apart(None, tmp_path) as engine:
        assert done(engine.run(Work(tmp_path), [0])) == [0]
        ours = set(all_below(os.getpid())) - before
        assert len(ours) > 3
    assert not any(map(is_alive, ours))
