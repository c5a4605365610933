"""What the workers of a cluster with GPUs ask of it; here its GPUs are only counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ray_cluster import RayCluster, ray_cluster
from support.works import Work

from bon.engines.ray import RayEngine
from bon.engines.ray_cluster import RayWorkers
from bon.protocols import Needs, PartDone

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as started:
        started.nodes.append(started.add(1, gpus=3))
        yield started


@pytest.mark.parametrize(
    ("most_gpus", "as_told", "num_free"),
    [(0, False, 3.0), (1, False, 2.0), (None, False, 1.0), (1, True, 1.0)],
)
def test_a_stage_holds_no_more_gpus_than_it_can_use(
    cluster: RayCluster, tmp_path: Path, most_gpus: int | None, as_told: bool, num_free: float
) -> None:
    import ray

    workers = RayWorkers(gpus=2, cpus=1)  # as of a generator with --tensor-parallel-size 2
    with RayEngine(cluster.address, workers, gpus_as_told=as_told) as engine:
        for event in engine.run(Work(tmp_path), [0], Needs(most_gpus=most_gpus)):
            if isinstance(event, PartDone):
                assert ray.available_resources().get("GPU", 0.0) == num_free


def test_a_scorer_that_needs_several_gpus_is_counted_with_all_of_them(cluster: RayCluster) -> None:
    workers = RayWorkers(gpus=2, cpus=0)
    with RayEngine(cluster.address, workers) as engine:
        assert engine.why_in_turn([Needs(), Needs(most_gpus=1), Needs(False, 0)]) is None
        why = engine.why_in_turn([Needs(), Needs(most_gpus=2)])
        assert why == "all stages together need 4 GPUs, the cluster has 3"
