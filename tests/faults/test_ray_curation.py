"""Faults of curation on a Ray cluster: lost nodes, a lost head, a full cluster, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT
from support.curated import made_up_pool
from support.mapped import slow, work
from support.ray_cluster import RayCluster, all_below, ray_cluster
from support.ray_scoring import Scoring
from support.started import Started, wait_until

from bon.engines.ray_mapping import RayMapper

pytestmark = pytest.mark.faults
NODES = (1, 1)
_SMALL_GROUPS = (
    "import bon.pipeline.frames, bon.cli.mappers; bon.pipeline.frames._FRAME_ROWS = 8; "
    "from bon.cli.entry import main; main()"
)
_SLOW = ("--filter", r"regex:pattern=^(\w+\s?)*$", "--rank-by", "reward")
"""Works for minutes on the texts of `begun`."""


def begun(cluster: RayCluster, folder: Path) -> subprocess.Popen[str]:
    """Begin to filter, and return once both nodes compute."""
    pool = made_up_pool(folder / "a.pool", 30, response="word " * 40 + "!")
    ray = ("--engine", "ray", "--ray-address", cluster.address, "--num-workers", 2)
    arguments = ("filter", pool.layout.root, *_SLOW, "-o", folder / "out.parquet", *ray)
    process = subprocess.Popen(
        [sys.executable, "-c", _SMALL_GROUPS, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip

    def is_there() -> bool:
        assert process.poll() is None, process.communicate()
        return len(computing()) == len(NODES)

    wait_until(is_there)
    return process


def computing() -> list[int]:
    return [pid for pid, said in all_below(os.getpid()).items() if "ray::_computed" in said]


def test_a_head_that_is_lost_ends_the_command_with_a_word(tmp_path: Path) -> None:
    with ray_cluster(*NODES) as cluster:
        process, address = begun(cluster, tmp_path), cluster.address
        cluster.kill_head()
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 1, stderr
        assert "error: the Ray cluster was lost" in stderr
        assert f"--ray-address {address}" in stderr
        assert "Traceback" not in stderr
        assert stdout == ""
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pool"]
        wait_until(lambda: not computing())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_ends_leaves_nothing_on_the_cluster(
    cluster: RayCluster, tmp_path: Path, how: signal.Signals
) -> None:
    process = begun(cluster, tmp_path)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    assert "Traceback" not in stderr
    wait_until(lambda: not computing())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pool"]


def test_what_a_lost_node_had_is_computed_elsewhere(cluster: RayCluster) -> None:
    with RayMapper(cluster.address, 2, 1) as mapper:
        found = []
        for result in mapper.map(slow, range(20)):
            found.append(result)
            if len(found) == 4:
                cluster.kill(cluster.nodes[1])
    assert found == list(range(20))


def test_where_no_node_is_left_it_waits_with_a_word(cluster: RayCluster) -> None:
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        if "room for 0 of 2 workers" in text:
            cluster.restore(*NODES)

    with RayMapper(cluster.address, 2, 1, tell=hear) as mapper:
        found = []
        for result in mapper.map(slow, range(20)):
            found.append(result)
            for node in cluster.nodes if len(found) == 4 else ():
                cluster.kill(node)
    assert found == list(range(20))
    assert "the others begin when nodes are added" in said[-1]


def test_a_cluster_that_others_fill_is_waited_for_with_a_word(
    cluster: RayCluster, tmp_path: Path
) -> None:
    other = Scoring(tmp_path, held="answer")
    run = Started(*other.on(cluster), cwd=other.here)
    wait_until(lambda: len(other.models()) == len(NODES), timeout_s=120)
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        other.go()

    with RayMapper(cluster.address, 2, 1, tell=hear) as mapper:
        assert [item for item, _ in mapper.map(work, range(6))] == list(range(6))
    assert len(said) == 1
    assert "no worker has been started for 20 s: waiting for room in the cluster" in said[0]
    assert "free are 0 of 2 cores" in said[0]
    assert run.end()[0] == 0
