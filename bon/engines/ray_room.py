"""Whether a cluster has room for the workers of a stage: a run that waits shall say so."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bon.engines.ray_cluster import RayWorkers
from bon.protocols import Note

__all__ = ["Room", "num_fitting"]

_SILENT_S = 20.0
"""Ray takes some seconds to start a worker, and a worker speaks every few seconds."""


@dataclass(slots=True)
class Room:
    """What is to be said, each thing once; a silence once each time."""

    workers: RayWorkers
    """With all that was left open filled in."""
    _since_s: float = field(default_factory=time.monotonic)
    _is_told: bool = False
    _has_begun: bool = False

    def at_start(self) -> list[Note]:
        """Say where the cluster's nodes cannot hold all workers at once."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most, there = self.workers.least, num_fitting(self.workers, nodes)
        if there is None or there >= most:
            return []
        has = f"the cluster has room for {there} of {most} workers with {self._each()} each"
        return [Note(f"{has}; the others begin when nodes are added")]

    def begun(self) -> None:
        """Take notice of what began, and may be silent from now on."""
        self._is_told = True

    def heard(self) -> None:
        """Take notice of a worker, which speaks every few seconds as long as it lives."""
        self._since_s, self._is_told, self._has_begun = time.monotonic(), False, True

    def later(self) -> list[Note]:
        """Say that no worker has begun for a while, or that all have fallen silent."""
        if self._is_told or time.monotonic() - self._since_s < _SILENT_S:
            return []
        import ray

        self._is_told = True
        free, all_there = ray.available_resources(), ray.cluster_resources()
        said = ", ".join(
            f"{free.get(name, 0):g} of {all_there.get(name, 0):g} {plural}"
            for name, plural in (("CPU", "cores"), ("GPU", "GPUs"))
            if all_there.get(name)
        )
        silence = (
            f"nothing was heard of any worker for {_SILENT_S:g} s: waiting until Ray has started "
            "one again where there is room"
            if self._has_begun
            else f"no worker has been started for {_SILENT_S:g} s: waiting for room in the cluster"
        )
        return [Note(f"{silence}, each needs {self._each()}; free are {said}")]

    def _each(self) -> str:
        gpus = f"{self.workers.gpus} GPUs and " if self.workers.gpus else ""
        return f"{gpus}{self.workers.cpus} cores"


def num_fitting(workers: RayWorkers, nodes: Iterable[Mapping[str, Any]]) -> int | None:
    """Count the workers that nodes with such resources hold at once; none: there is no limit."""
    asked = {"CPU": workers.cpus or 0, "GPU": workers.gpus or 0}
    wanted = {name: each for name, each in asked.items() if each}
    if not wanted:
        return None
    return sum(
        min(int(node.get(name, 0) // each) for name, each in wanted.items()) for node in nodes
    )
