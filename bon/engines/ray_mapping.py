"""A pure function computed for many items on a Ray cluster, the results in their order."""

from __future__ import annotations

import logging
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Self, TypeVar

from bon.engines.apart import Apart
from bon.engines.mapping import Outcome, packed
from bon.engines.ray_cluster import RayWorkers
from bon.engines.ray_tasks import RayTasks, TaskSettings
from bon.protocols import Note

__all__ = ["RayMapper"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_END = b""


class RayMapper:
    """Computes on a cluster; connects when there is something to do, leaves when it is closed.

    Without an address the cluster is one of our own on this machine. `tell` takes what a person
    should know of it.
    """

    def __init__(
        self,
        address: str | None,
        num_workers: int,
        cpus: int | None = None,
        settings: TaskSettings | None = None,
        tell: Callable[[str], object] = _log.info,
    ) -> None:
        self.num_workers = num_workers
        self._tell = tell
        workers = RayWorkers(num_workers, num_workers, 0, cpus)
        tasks = RayTasks(address, workers, settings or TaskSettings())
        self._apart = Apart(tasks, address)
        self._scratch: Path | None = None

    def __enter__(self) -> Self:
        self._scratch = Path(tempfile.mkdtemp(prefix="bon-"))
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._apart.close()
        if self._scratch is not None and not isinstance(error, Exception):  # which may name the log
            shutil.rmtree(self._scratch, ignore_errors=True)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results in the order of the items, two for each worker ahead at most.

        Raises:
            Exception: what the function raised for the item whose turn it is.
            EngineError: Ray is not there, or was lost, or a node cannot compute.
            WorkerDiedError: a task was lost again and again.
        """
        more = chain(map(packed, items), [_END])
        log = None if self._scratch is None else self._scratch / "ray.log"
        with closing(self._apart.answers(_Map(packed(function)), more, log=log)) as answers:
            for answer in answers:
                if isinstance(answer, Note):
                    self._tell(answer.text)
                    continue
                outcome: Outcome = pickle.loads(answer)
                yield outcome.get()


@dataclass(frozen=True, slots=True)
class _Map:
    """Compute this function, for the items that follow."""

    function: bytes

    def answers(self, tasks: RayTasks, more: Iterator[bytes]) -> Iterator[bytes | Note]:
        yield from tasks.map(self.function, iter(partial(next, more), _END))
