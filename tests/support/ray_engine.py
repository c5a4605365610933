"""The Ray engine on a cluster of tests, and what it has done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bon.engines.ray import RayEngine
from bon.engines.ray_cluster import RayWorkers
from bon.protocols import Event, PartDone
from support.ray_cluster import RayCluster

__all__ = ["done", "ray_engine"]


@contextmanager
def ray_engine(cluster: RayCluster, folder: Path, num_workers: int) -> Iterator[RayEngine]:
    """Give an engine that keeps its log in a folder."""
    log = folder / ".bon" / "worker.log"
    log.parent.mkdir()
    with RayEngine(cluster.address, RayWorkers(num_workers, num_workers), log) as engine:
        yield engine


def done(events: Iterable[Event]) -> list[int]:
    """Return the parts that events say are done."""
    return sorted(event.part for event in events if isinstance(event, PartDone))
