"""What a Ray cluster, or the disk below it, may lack: room, the cluster itself, space."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.commands import bon, pool_files
from support.ray_cluster import RayCluster, is_alive, ray_cluster
from support.ray_scoring import Scoring
from support.started import Started, wait_until
from support.system_faults import mounted

pytestmark = pytest.mark.faults
NODES = (1, 1)
GOES_ON = "the same command goes on"


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


def test_disk_that_is_full_for_one_worker(cluster: RayCluster, tmp_path: Path) -> None:
    with mounted(tmp_path / "in.pool", "size=4m") as disk:
        scoring = Scoring(tmp_path)
        run = scoring.start_held(cluster)
        committed = scoring.committed()
        before = pool_files(disk)
        filler = fill(disk)
        scoring.go()
        code, err = run.end()

        assert code == 1, err
        assert "error: cannot write" in err
        assert "  why:   No space left on device\n" in err
        assert "make room" in err
        assert "Traceback" not in err
        filler.unlink()
        found = pool_files(disk)
        assert {name: found[name] for name in before} == before
        assert list(disk.rglob("*.tmp")) == []
        wait_until(lambda: not cluster.left())

        again = bon(*scoring.on(cluster), cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        scoring.check_redone(committed)
        scoring.check_as_local()


def test_no_cluster_at_the_address(tmp_path: Path) -> None:
    scoring = Scoring(tmp_path)
    nobody = ("--engine", "ray", "--ray-address", "127.0.0.1:9")
    started_s = time.monotonic()
    done = bon(*scoring.command(), *nobody, cwd=tmp_path)

    assert done.returncode == 1, done.stderr
    assert "error: no Ray cluster answers\n  where: --ray-address 127.0.0.1:9\n" in done.stderr
    assert "ray start --head" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started_s < 120, "Ray itself asks for minutes"
    scoring.go()
    done = bon(*scoring.command(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scoring.check_as_local()


def test_cluster_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    scoring = Scoring(tmp_path)
    with ray_cluster(*NODES) as cluster:
        run = scoring.start_held(cluster)
        left, committed = cluster.left(), scoring.committed()
        cluster.kill_head()
        code, err = run.end()

        assert code == 1, err
        assert "error: the Ray cluster was lost" in err
        assert GOES_ON in err
        assert "Traceback" not in err
        wait_until(lambda: not any(map(is_alive, left)))
    scoring.go()
    with ray_cluster(*NODES) as cluster:
        again = bon(*scoring.on(cluster), cwd=tmp_path)
        assert again.returncode == 0, again.stderr
    scoring.check_redone(committed)
    scoring.check_as_local()


def test_more_workers_than_the_cluster_has_room_for(cluster: RayCluster, tmp_path: Path) -> None:
    scoring = Scoring(tmp_path)
    scoring.go()
    done = bon(*scoring.on(cluster, workers=9), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 9 workers" in done.stderr
    scoring.check_as_local()


def test_gpus_that_no_node_has(cluster: RayCluster, tmp_path: Path) -> None:
    scoring = Scoring(tmp_path)
    done = bon(*scoring.on(cluster, "--gpus-per-worker", 1), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "a worker with 1 GPUs is more than any node can hold" in done.stderr


def test_cluster_that_loses_all_its_workers(tmp_path: Path) -> None:
    scoring = Scoring(tmp_path)
    with ray_cluster(1) as cluster:
        run = scoring.start_held(cluster, workers=1)
        committed = scoring.committed()
        cluster.kill(cluster.nodes[0])
        log = tmp_path / "in.pool/.bon/run.log"
        wait_until(lambda: "nothing was heard of any worker" in log.read_text(), timeout_s=120)
        cluster.add(1)
        scoring.go()
        code, err = run.end()
    assert code == 0, err
    assert "waiting until Ray has started one again where there is room, each needs 1 cores" in err
    scoring.check_redone(committed)
    scoring.check_as_local()


def test_cluster_that_others_fill(cluster: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first, second = Scoring(tmp_path / "first", held="answer"), Scoring(tmp_path / "second")
    run = Started(*first.on(cluster), cwd=first.here)
    wait_until(lambda: len(first.models()) == len(NODES))
    second.go()
    waits = Started(*second.on(cluster), cwd=second.here)
    log = second.here / "in.pool/.bon/run.log"
    wait_until(lambda: log.exists() and "waiting for room" in log.read_text(), timeout_s=120)
    assert not second.committed()
    first.go()

    code, err = run.end()
    assert code == 0, err
    assert "nothing was heard" not in err, "a worker that computes is not silent"
    code, err = waits.end()
    assert code == 0, err
    assert "no worker has been started for 20 s: waiting for room in the cluster" in err
    assert "free are 0 of 2 cores" in err
    second.check_as_local()
