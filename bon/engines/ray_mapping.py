"""A pure function computed for many items as tasks of a Ray cluster, the results in their order.

Where a task runs, and that it is done again when its node is lost, is Ray's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

from bon.engines.mapping import Outcome
from bon.engines.ray_cluster import RayWorkers, connect, disconnect
from bon.errors import WorkerDiedError, first_line

__all__ = ["RayMapper"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 2
"""Tasks for each worker that are given at once: one is computed while another waits."""


class RayMapper:
    """Computes on a cluster; connects when there is something to do, leaves when it is closed.

    Without an address the cluster is one of our own on this machine.
    """

    def __init__(self, address: str | None, num_workers: int, cpus: int | None = None) -> None:
        self.num_workers = num_workers
        self._address = address
        self._asked = RayWorkers(num_workers, num_workers, 0, cpus)
        self._workers: RayWorkers | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._workers is not None:
            self._workers = None
            disconnect()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results in the order of the items, two for each worker ahead at most.

        Raises:
            Exception: what the function raised for the item whose turn it is.
            EngineError: Ray is not there.
            WorkerDiedError: a task was lost again and again.
        """
        if self._workers is None:
            self._workers = connect(self._address, self._asked)
        import ray

        task = ray.remote(num_cpus=self._workers.cpus)(_computed)
        sent = ray.put(function)
        given: deque[Any] = deque()
        is_done = False
        try:
            for item in items:
                given.append(task.remote(sent, item))
                if len(given) == _AHEAD * self.num_workers:
                    yield _got(given.popleft())
            while given:
                yield _got(given.popleft())
            is_done = True
        finally:
            if not is_done:  # they compute what nobody wants any more
                self._close()


def _computed(function: Callable[[Any], Any], item: Any) -> Outcome:
    """Run on a node."""
    return Outcome.of(function, item)


def _got(task: Any) -> Any:
    import ray

    try:
        outcome: Outcome = ray.get(task)
    except ray.exceptions.RayError as error:
        raise WorkerDiedError(
            "a worker that computed was lost again and again",
            why=first_line(error),
            next_step="nothing was written: run the same command again, with a smaller "
            "--num-workers where memory is short",
        ) from error
    return outcome.get()
