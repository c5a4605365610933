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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from bon.engines.chain import workers_of
from bon.engines.ray_blocks import ever_smaller, read_rows, small
from bon.engines.ray_cluster import RayWorkers, connect, disconnect, lost_cluster, resources
from bon.engines.ray_lane import Begun, Hub, LaneActor, LaneSettings, Said
from bon.engines.ray_room import Room
from bon.errors import AccountingError, BonError, EngineError, WorkerDiedError, first_line
from bon.protocols import Event, Needs, Note, PartDone, Parts, PartWork, Restarted, Stage

__all__ = ["RayEngine"]

_BLOCKS_AHEAD = 2
"""Blocks that a worker has at once: it has work while a finished one goes back."""
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
    gpus_as_told: bool = False
    """Every worker asks for `workers.gpus`; else for no more of them than its stage can use."""
    max_restarts: int = 2
    """Times that a worker may be lost while none at all does a part; and times in a row that a
    worker's model may be lost while it loads."""
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

    def run(self, work: PartWork, parts: Parts, needs: Needs = Needs()) -> Iterator[Event]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised.
            EngineError: Ray is not there, or failed.
            WorkerDiedError: a worker was lost again and again.
        """
        numbers = [part for part in parts if part is not None]
        for _, event in self.run_chain([Stage(work, numbers, replace(needs, has_model=True))]):
            yield event

    def run_chain(self, stages: Sequence[Stage]) -> Iterator[tuple[int, Event]]:
        """Do several works side by side; yield events, each with its stage's number.

        Raises:
            BonError, EngineError, WorkerDiedError: see `run`.
        """
        if any(stage.parts for stage in stages):
            yield from self._run(stages, self._workers_of([stage.needs for stage in stages]))

    def why_in_turn(self, needs: Sequence[Needs]) -> str | None:
        """Say why such stages cannot run side by side; none: the cluster has room for all."""
        workers = self._workers_of(needs)
        for name, needed in (
            ("GPU", sum(one.least * (one.gpus or 0) for one in workers)),
            ("CPU", sum(one.least * (one.cpus or 0) for one in workers)),
        ):
            there = resources().get(name, 0)
            if needed > there:
                return f"all stages together need {needed} {name}s, the cluster has {there:g}"
        return None

    def _connected(self) -> RayWorkers:
        if self._resolved is None:
            self._resolved = connect(self.address, self.workers)
        return self._resolved

    def _workers_of(self, needs: Sequence[Needs]) -> list[RayWorkers]:
        """Return each stage's workers; one without a model, beside others, asks for a core, of a
        cluster of ours for nothing."""
        asked = self._connected()
        counts = workers_of([one.has_model for one in needs], asked.most)
        lonely = RayWorkers(1, 1, 0, 0 if self.address is None else 1)
        return [
            replace(
                asked,
                least=min(asked.least, count),
                most=count,
                gpus=asked.gpus if self.gpus_as_told else _at_most(asked.gpus, one.most_gpus),
            )
            if count
            else lonely
            for count, one in zip(counts, needs, strict=True)
        ]

    def _run(
        self, stages: Sequence[Stage], workers: Sequence[RayWorkers]
    ) -> Iterator[tuple[int, Event]]:
        run = _Run(self, stages, workers)
        try:
            yield from run.events()
        except BaseException:
            run.stop()  # nothing of a run that failed or was stopped goes on
            self.close()
            raise


@dataclass(slots=True)
class _Run:
    """Stages side by side, or one alone, on a cluster we are connected to."""

    engine: RayEngine
    stages: Sequence[Stage]
    workers: Sequence[RayWorkers]
    _heard: queue.SimpleQueue[tuple[int, _Heard]] = field(default_factory=queue.SimpleQueue)
    """What was told, of which stage."""
    _hubs: list[Any] = field(default_factory=list)
    _dataset: Any = None
    _threads: tuple[threading.Thread, ...] = ()
    _rooms: list[Room] = field(init=False)
    _begun_again: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Times that a stage's worker was started again since any worker has done a part."""
    _left: set[tuple[int, int]] = field(default_factory=set)
    """Parts that are not done, each after its stage."""

    def __post_init__(self) -> None:
        self._rooms = [Room(one) for one in self.workers]

    def events(self) -> Iterator[tuple[int, Event]]:
        for stage, room in enumerate(self._rooms):
            for note in room.at_start():
                yield stage, note
        self._hubs = [self._new_hub() for _ in self.stages]
        self._dataset = self._new_dataset()
        self._threads = (
            threading.Thread(target=self._read_rows, daemon=True),
            *(
                threading.Thread(target=self._hear, args=(stage, hub), daemon=True)
                for stage, hub in enumerate(self._hubs)
            ),
        )
        for thread in self._threads:
            thread.start()
        self._left = {(stage, part) for stage, one in enumerate(self.stages) for part in one.parts}
        num_over = 0
        while num_over < len(self._threads):
            stage, heard = self._next()
            for event in self._events_of(stage, heard):
                if isinstance(event, _Over):
                    num_over += 1
                elif not isinstance(event, PartDone):
                    yield stage, event
                elif (stage, event.part) in self._left:  # it is told again with its block
                    self._left.remove((stage, event.part))
                    yield stage, event
        self.stop()
        if self._left:
            raise AccountingError(
                f"Ray ended in order without {len(self._left)} parts",
                where=f"the first is part {min(self._left)[1]}",
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
        for hub in self._hubs:
            with suppress(ray.exceptions.RayError):
                ray.kill(hub)
        for thread in others:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _next(self) -> tuple[int, _Heard]:
        """Wait for what is told next, a second at a time, so that a signal is seen."""
        while True:
            with suppress(queue.Empty):
                return self._heard.get(timeout=1.0)
            for stage in {stage for stage, _ in self._left}:
                for note in self._rooms[stage].later():
                    return stage, note

    def _events_of(self, stage: int, heard: _Heard) -> Iterator[Event | _Over]:
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
            self._rooms[stage].heard()
            if any(isinstance(event, PartDone) for event in heard.events):
                self._begun_again.clear()  # the cluster makes progress, whoever it is that is lost
            yield from heard.events
        else:
            self._rooms[stage].heard()
            if heard.is_again:
                yield self._restarted(stage, heard)

    def _restarted(self, stage: int, begun: Begun) -> Restarted:
        self._begun_again[stage, begun.worker] += 1
        num_times = self._begun_again[stage, begun.worker]
        if num_times > self.engine.max_restarts:
            raise WorkerDiedError(
                "a worker is lost again and again",
                where=f"worker {begun.worker}, last on node {begun.node}",
                why=f"it was started again {num_times} times while no worker "
                "did a part; often a node is out of memory",
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
            ray.get([hub.close.remote() for hub in self._hubs])
        except Exception as error:
            self._heard.put((0, _Over(error)))
        else:
            self._heard.put((0, _Over()))

    def _new_dataset(self) -> Any:
        import ray

        parts = [stage.parts for stage in self.stages]
        is_alone = len(parts) == 1
        blocks = ever_smaller(parts[0], self.workers[0].most) if is_alone else small(parts)
        # from_arrow would start a task a block, which waits where all cores are taken
        rows = ray.data.from_blocks(blocks)
        for number, stage in enumerate(self.stages):
            if stage.parts:
                rows = self._staged(rows, number, len(blocks))
        return rows

    def _staged(self, rows: Any, number: int, num_blocks: int) -> Any:
        """Return Ray's rows with one stage more to go through."""
        import ray

        workers = self.workers[number]
        settings = LaneSettings(
            number,
            self._hubs[number],
            _log_of_stage(self.engine.log, number),
            self.engine.max_restarts,
            self.engine.stall_timeout_s,
            self.engine.load_timeout_s,
            ray.get_runtime_context().get_node_id(),
        )
        ahead = min(_BLOCKS_AHEAD, -(-num_blocks // workers.most))
        pool = ray.data.ActorPoolStrategy(
            min_size=min(workers.least, num_blocks),
            max_size=min(workers.most, num_blocks),
            max_tasks_in_flight_per_actor=ahead,
            max_concurrent_calls_per_actor=ahead,
            enable_true_multi_threading=True,
        )
        return rows.map_batches(
            LaneActor,
            fn_constructor_args=(self.stages[number].work, settings),
            compute=pool,
            batch_size=1,  # a block
            batch_format="pyarrow",
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
        )

    def _hear(self, stage: int, hub: Any) -> None:
        """Take what workers tell, in a thread of its own."""
        import ray

        try:
            while (words := ray.get(hub.heard.remote())) is not None:
                for word in words:
                    self._heard.put((stage, word))
        except Exception as error:
            self._heard.put((stage, _Over(error, is_hubs=True)))
        else:
            self._heard.put((stage, _Over()))


def _at_most(gpus: int | None, most: int | None) -> int | None:
    return gpus if gpus is None or most is None else min(gpus, most)


def _log_of_stage(log: Path | None, stage: int) -> Path | None:
    return log if log is None or stage == 0 else log.with_stem(f"{log.stem}-stage-{stage + 1}")


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
