"""What the tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.ray_cluster import RayCluster, ray_cluster
from support.started import end_all


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Let no command outlive its test."""
    yield
    end_all()


@pytest.fixture(scope="module")
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[RayCluster]:
    """A cluster for all tests of a module, with the cores of each node that its NODES says."""
    with ray_cluster(*request.module.NODES) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: RayCluster, request: pytest.FixtureRequest) -> RayCluster:
    """The module's cluster, with all its nodes alive."""
    shared_cluster.restore(*request.module.NODES)
    return shared_cluster
