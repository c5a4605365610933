"""A pure function computed for many items as tasks of a Ray cluster, in the process that talks to
Ray; here all is bytes, which only the nodes and the command read.

Where a task runs, and that it is done again when its node is lost, is Ray's.
"""

from __future__ import annotations

import pickle
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from bon.engines.mapping import Outcome, packed
from bon.engines.ray_cluster import RayWorkers, connect, disconnect
from bon.engines.ray_origin import Origin
from bon.engines.ray_room import Room
from bon.errors import BonError, EngineError, WorkerDiedError, first_line
from bon.protocols import Note

__all__ = ["RayTasks", "TaskSettings"]

_AHEAD = 2
"""Tasks for each worker that are given at once: one is computed while another waits."""
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What a node must have in common with the one where the command was started."""

    sees: Path | None = None
    """What has to be there under the same path; an object store is there for all."""
    origin: Origin = field(default_factory=Origin)

    def apply(self) -> None:
        """Make this process one that can compute.

        Raises:
            EngineError: its node cannot.
        """
        try:
            self.origin.enter()
        except EngineError as error:
            error.where = f"node {_node()}"
            raise
        if self.sees is not None and not self.sees.exists():
            raise EngineError(
                "a node of the Ray cluster does not see the pool",
                where=f"node {_node()}",
                why=f"there is no {self.origin.folder / self.sees} there",
                next_step="put it into a folder that all nodes see under the same path, or on an "
                "object store; or give --engine local",
            )


@dataclass(slots=True)
class RayTasks:
    """A context: connected to a cluster, or with one of our own on this machine."""

    address: str | None
    workers: RayWorkers
    settings: TaskSettings
    _room: Room = field(init=False)
    _said: set[Note] = field(default_factory=set)

    def __enter__(self) -> Self:
        self.workers = connect(self.address, self.workers)
        self._room = Room(self.workers)
        return self

    def __exit__(self, *_: object) -> None:
        disconnect()

    def map(self, function: bytes, items: Iterable[bytes]) -> Iterator[bytes | Note]:
        """Yield an `Outcome` for each item, in their order, and what is to be said meanwhile.

        Two items for each worker are taken ahead, at most. All of them are pickled.

        Raises:
            BonError: a node cannot compute.
            WorkerDiedError: a task was lost again and again.
        """
        import ray

        asked = {"num_cpus": self.workers.cpus}
        first = ray.remote(**asked)(_look).remote()
        task = ray.remote(**asked)(_computed)
        sent = ray.put((self.settings, self.workers.cpus, function))
        given: deque[Any] = deque()
        for item in items:
            given.append(task.remote(sent, item))
            if len(given) == _AHEAD * self.workers.most:
                yield from self._got(given.popleft(), first)
        while given:
            yield from self._got(given.popleft(), first)

    def _got(self, task: Any, first: Any) -> Iterator[bytes | Note]:
        """Yield what came of a task, and before it what of the cluster makes it take long.

        That `first` is done says that there was room for a worker.
        """
        import ray

        while not ray.wait([task], timeout=_LOOK_S)[0]:
            if ray.wait([first], timeout=0)[0]:
                self._room.begun()
            for note in (*self._room.at_start(), *self._room.later()):
                if note not in self._said:
                    self._said.add(note)
                    yield note
        try:
            yield ray.get(task)
        except ray.exceptions.RayError as error:
            raise _as_ours(error) from error


def _look() -> None:
    """Run on a node: there is room for a worker."""


def _computed(sent: tuple[TaskSettings, int, bytes], item: bytes) -> bytes:
    """Run on a node."""
    settings, num_threads, function = sent
    try:
        settings.apply()
    except EngineError as error:
        return packed(Outcome(error=error))
    pa.set_cpu_count(num_threads)
    return packed(Outcome.of(pickle.loads(function), pickle.loads(item)))


def _as_ours(error: Exception) -> BonError:
    from ray.exceptions import RayTaskError

    if isinstance(error, RayTaskError):  # not what the function raised: that is an outcome
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        node = re.search(r"\bip=([^,)\s]+)", lines[0])
        return EngineError(
            "a node of the Ray cluster cannot run bon",
            where=f"node {node[1]}" if node else "",
            why=lines[-1],
            next_step="install the same version of bon-cli on every node",
        )
    return WorkerDiedError(
        "a worker that computed was lost again and again",
        why=first_line(error),
        next_step="nothing was written: run the same command again, with a smaller "
        "--num-workers where memory is short",
    )


def _node() -> str:
    import ray

    return str(ray.util.get_node_ip_address())
