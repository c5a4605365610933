"""Runs a stage's work on a Ray cluster: parts in Ray Data's blocks, workers in its actor pool.

Where a worker runs, when it is started again and what it is given next is Ray's. Ours is that a
part can be done again by anyone. The driver holds the numbers of the parts and what is said of
them, never a candidate.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from bon.engines.ray_cluster import RayWorkers, connect, disconnect, lost_cluster
from bon.engines.ray_lane import Begun, Hub, LaneActor, LaneSettings, Said, read_rows
from bon.engines.ray_room import Room
from bon.errors import AccountingError, BonError, EngineError, WorkerDiedError, first_line
from bon.protocols import Event, Note, PartDone, Parts, PartWork, Restarted, Stage

__all__ = ["RayEngine"]

_BLOCKS_AHEAD = 2
"""Blocks that a worker has at once: it has work while a finished one goes back."""
_SHARE_OF_WORK = 4
"""A block is this fraction of an even share of what is left: the last ones are single parts, so no
worker waits long for the others."""
_HUB_CALLS = 16
_END_TIMEOUT_S = 20.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class _Over:
    """A thread has told all it had; `error`: and why it ended before its time."""

    error: Exception | None = None
    is_hubs: bool = False
    """It came of asking the hub, which is on this very node."""


_Heard: TypeAlias = "Begun | Said | PartDone | Note | _Over"


@dataclass(slots=True)
class RayEngine:
    """Run work on a cluster; connects when there is some, and leaves when it is closed."""

    address: str | None = None
    """`HOST:PORT` of a cluster, or `auto`; none: one of our own on this machine."""
    workers: RayWorkers = field(default_factory=RayWorkers)
    log: Path | None = None
    """Receives what the first worker's model prints; files beside it what the others' do."""
    max_restarts: int = 2
    """Times in a row that a worker may be lost without having done a part; models that are lost
    while they load are counted in the same way."""
    stall_timeout_s: float = 600.0
    """Seconds without a sign of life after which a model's process is taken for hung."""
    load_timeout_s: float = 3600.0
    """The same while it loads its model, which gives no signs."""
    _resolved: RayWorkers | None = None

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster: what still runs there for us ends."""
        if self._resolved is not None:
            self._resolved = None
            disconnect()

    def run(self, work: PartWork, parts: Parts) -> Iterator[Event]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised.
            EngineError: Ray is not there, or failed.
            WorkerDiedError: a worker was lost again and again.
        """
        numbers = [part for part in parts if part is not None]
        if not numbers:
            return
        if self._resolved is None:
            self._resolved = connect(self.address, self.workers)
        run = _Run(self, work, numbers, self._resolved)
        try:
            yield from run.events()
        except BaseException:
            run.stop()  # nothing of a run that failed or was stopped goes on
            self.close()
            raise

    def run_chain(self, stages: Sequence[Stage]) -> Iterator[tuple[int, Event]]:
        """Refuse: on a cluster stages run one after the other."""
        raise AccountingError("works were begun side by side on Ray", why="this is a bug in bon")

    def why_in_turn(self, has_model: Sequence[bool]) -> str | None:
        """Say why stages cannot run side by side."""
        return "on Ray one stage has all workers"


@dataclass(slots=True)
class _Run:
    """One stage on a cluster we are connected to."""

    engine: RayEngine
    work: PartWork
    parts: list[int]
    workers: RayWorkers
    _heard: queue.SimpleQueue[_Heard] = field(default_factory=queue.SimpleQueue)
    _hub: Any = None
    _dataset: Any = None
    _threads: tuple[threading.Thread, ...] = ()
    _room: Room = field(init=False)
    _begun_again: Counter[int] = field(default_factory=Counter)
    """Times in a row that a worker was started again without having done a part."""

    def __post_init__(self) -> None:
        self._room = Room(self.workers)

    def events(self) -> Iterator[Event]:
        yield from self._room.at_start()
        self._hub = self._new_hub()
        self._dataset = self._new_dataset()
        self._threads = tuple(
            threading.Thread(target=target, daemon=True) for target in (self._read_rows, self._hear)
        )
        for thread in self._threads:
            thread.start()
        left, num_over = dict.fromkeys(self.parts), 0
        while num_over < len(self._threads):
            for event in self._events_of(self._next()):
                if isinstance(event, _Over):
                    num_over += 1
                elif not isinstance(event, PartDone):
                    yield event
                elif event.part in left:  # it is told as it is done, and again with its block
                    del left[event.part]
                    yield event
        self.stop()
        if left:
            raise AccountingError(
                f"Ray ended in order without {len(left)} parts",
                where=f"the first is part {next(iter(left))}",
                why="this is a bug in bon",
            )

    def stop(self) -> None:
        """End what still runs, and wait for our threads: Ray must not be left while one asks it."""
        import ray

        until_s = time.monotonic() + _END_TIMEOUT_S
        rows, *others = self._threads or (None,)
        while rows is not None and rows.is_alive() and time.monotonic() < until_s:
            executor = getattr(self._dataset, "_current_executor", None)  # there once it has begun
            if executor is not None:
                executor.shutdown(force=True)
            rows.join(_LOOK_S)
        with suppress(ray.exceptions.RayError):
            ray.kill(self._hub)
        for thread in others:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _next(self) -> _Heard:
        """Wait for what is told next, a second at a time, so that a signal is seen."""
        while True:
            with suppress(queue.Empty):
                return self._heard.get(timeout=1.0)
            for note in self._room.later():
                return note

    def _events_of(self, heard: _Heard) -> Iterator[Event | _Over]:
        """Yield the events in what was told.

        Raises:
            BonError: a worker's, or how Ray failed.
        """
        if isinstance(heard, _Over):
            if heard.error is not None:
                raise _as_ours(heard.error, self.engine.address, heard.is_hubs)
            yield heard
        elif isinstance(heard, PartDone | Note):
            yield heard
        elif isinstance(heard, Said):
            if any(isinstance(event, PartDone) for event in heard.events):
                self._begun_again[heard.worker] = 0
            yield from heard.events
        else:
            self._room.begun()
            if heard.is_again:
                yield self._restarted(heard)

    def _restarted(self, begun: Begun) -> Restarted:
        self._begun_again[begun.worker] += 1
        if self._begun_again[begun.worker] > self.engine.max_restarts:
            raise WorkerDiedError(
                "a worker is lost again and again",
                where=f"worker {begun.worker}, last on node {begun.node}",
                why=f"it was started {self._begun_again[begun.worker]} times in a row without "
                "doing a part; often a node is out of memory",
                next_step="look at the nodes (`ray status`, `ray logs`); what is committed stays, "
                "and the same command goes on from there",
            )
        return Restarted(
            f"worker {begun.worker} or its node was lost", f"going on with it on node {begun.node}"
        )

    def _new_hub(self) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_concurrency": _HUB_CALLS, "scheduling_strategy": here}
        return ray.remote(Hub).options(**options).remote()

    def _read_rows(self) -> None:
        """Have Ray Data do the blocks, in a thread of its own; rows say which parts are done."""
        import ray

        try:
            batches = self._dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            )
            for rows in batches:
                for done in read_rows(rows):
                    self._heard.put(done)
            # all that workers have told of these rows is there by now
            ray.get(self._hub.close.remote())
        except Exception as error:
            self._heard.put(_Over(error))
        else:
            self._heard.put(_Over())

    def _new_dataset(self) -> Any:
        import ray

        settings = LaneSettings(
            self._hub,
            self.engine.log,
            self.engine.max_restarts,
            self.engine.stall_timeout_s,
            self.engine.load_timeout_s,
        )
        blocks = _blocks(self.parts, self.workers.most)
        ahead = min(_BLOCKS_AHEAD, -(-len(blocks) // self.workers.most))
        pool = ray.data.ActorPoolStrategy(
            min_size=min(self.workers.least, len(blocks)),
            max_size=min(self.workers.most, len(blocks)),
            max_tasks_in_flight_per_actor=ahead,
            max_concurrent_calls_per_actor=ahead,
            enable_true_multi_threading=True,
        )
        # from_arrow would start a task a block, which waits where all cores are taken
        return ray.data.from_blocks(blocks).map_batches(
            LaneActor,
            fn_constructor_args=(self.work, settings),
            compute=pool,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=self.workers.cpus,
            num_gpus=self.workers.gpus,
        )

    def _hear(self) -> None:
        """Take what workers tell, in a thread of its own."""
        import ray

        try:
            while (words := ray.get(self._hub.heard.remote())) is not None:
                for word in words:
                    self._heard.put(word)
        except Exception as error:
            self._heard.put(_Over(error, is_hubs=True))
        else:
            self._heard.put(_Over())


def _blocks(parts: Sequence[int], num_workers: int) -> list[pa.Table]:
    """Return the parts in blocks, the unit in which Ray hands them out: large ones first.

    Each costs the driver some kilobytes, so of many parts not every one is a block.
    """
    blocks, start = [], 0
    while start < len(parts):
        size = max(1, (len(parts) - start) // (_SHARE_OF_WORK * num_workers))
        blocks.append(pa.table({"part": pa.array(parts[start : start + size], pa.int64())}))
        start += size
    return blocks


def _as_ours(error: Exception, address: str | None, is_hubs: bool) -> BonError:
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    if isinstance(error, BonError):
        return error
    if is_hubs and isinstance(error, ActorDiedError | ActorUnavailableError):
        return lost_cluster(address, f"nobody answers on this node any more: {first_line(error)}")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return EngineError(
        f"Ray failed: {type(error).__name__}",
        why="\n".join(dict.fromkeys([first_line(error), *lines[-1:]])),  # the last one says why
        next_step="look at the nodes (`ray status`, `ray logs`); what is committed stays, and the "
        "same command goes on from there",
    )
