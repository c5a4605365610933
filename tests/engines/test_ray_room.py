"""How many workers a cluster's nodes hold."""

from __future__ import annotations

import pytest

from bon.engines.ray_cluster import RayWorkers
from bon.engines.ray_room import num_fitting

NODES = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}, {}]


@pytest.mark.parametrize(
    ("gpus", "cpus", "expected"),
    [(0, 2, 5), (1, 1, 2), (1, 8, 1), (2, 1, 1), (3, 1, 0), (1, 0, 2), (0, 0, None)],
)
def test_workers_that_nodes_hold_at_once(gpus: int, cpus: int, expected: int | None) -> None:
    assert num_fitting(RayWorkers(4, 4, gpus, cpus), NODES) == expected
