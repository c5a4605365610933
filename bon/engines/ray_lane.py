"""What of the Ray engine runs in the cluster: an actor for each worker, and one that they tell.

A worker's actor holds no model itself. It runs the local engine, so a model has a process of its
own under the same watchdog, is started again when it dies, and the prompt that kills it is found.
"""

from __future__ import annotations

import contextlib
import json
import queue
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from bon.engines.local import LocalEngine
from bon.engines.ray_blocks import ROWS, error_row
from bon.engines.ray_origin import Origin
from bon.errors import BonError, EngineError, PoolNotFoundError
from bon.protocols import Event, KnowsDone, PartDone, PartWork, Progress

__all__ = ["Begun", "Hub", "LaneActor", "LaneSettings", "Said"]

_GATHER_S = 0.25
"""Events of so many seconds are told at once."""
_LONGEST_WAIT_S = 1.0
_SPEAKS_EVERY_S = 5.0
"""A worker says that it lives where there is nothing else to tell."""
_END_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker's actor was started, for the first time or again after it was lost."""

    worker: int
    node: str
    is_again: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What happened in a worker since it last told."""

    worker: int
    events: tuple[Event, ...]


Word: TypeAlias = Begun | Said


class Hub:
    """An actor on the driver's node that workers tell what happens and that the driver asks.

    A worker that is started again, on whatever node, keeps its number.
    """

    def __init__(self) -> None:
        self._words = queue.SimpleQueue[Word]()
        self._numbers: dict[str, int] = {}
        self._is_closed = False
        self._lock = threading.Lock()

    def begin(self, actor_id: str, node: str) -> int:
        """Give a worker its number."""
        with self._lock:
            is_again = actor_id in self._numbers
            number = self._numbers.setdefault(actor_id, len(self._numbers))
        self._words.put(Begun(number, node, is_again))
        return number

    def tell(self, said: Said) -> None:
        """Take what a worker says."""
        self._words.put(said)

    def close(self) -> None:
        """Say that no more will be told."""
        self._is_closed = True

    def heard(self) -> list[Word] | None:
        """Return what was told since it was last asked, waiting for some; none: that was all."""
        is_last = self._is_closed
        words: list[Word] = []
        with contextlib.suppress(queue.Empty):
            words.append(self._words.get(timeout=0.0 if is_last else _LONGEST_WAIT_S))
            while True:
                words.append(self._words.get_nowait())
        return words if words or not is_last else None


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """How every worker of a stage runs."""

    stage: int
    """Its number, of those that run side by side."""
    hub: Any
    """The `Hub`."""
    log: Path | None
    """Receives what the first worker's model prints; files beside it what the others' do."""
    max_restarts: int
    stall_timeout_s: float
    load_timeout_s: float
    home: str
    """The id of the driver's node: an error of any other one says where it was."""
    origin: Origin = field(default_factory=Origin)


class LaneActor:
    """What Ray Data calls with a block of parts; returns once all of them are committed."""

    def __init__(self, work: PartWork, settings: LaneSettings) -> None:
        self._lane = _Lane(work, settings)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Do the parts that this stage has to do; return `ROWS` that say so, or the error."""
        return self._lane.do(block)

    def __del__(self) -> None:
        """Let the model's process end in order; Ray waits for this when a stage is over."""
        with contextlib.suppress(AttributeError):
            self._lane.end()


class _Lane:
    """The local engine in a thread, fed with parts."""

    def __init__(self, work: PartWork, settings: LaneSettings) -> None:
        import ray

        self._work, self._hub, self._stage = work, settings.hub, settings.stage
        self._feed = queue.SimpleQueue[int | None]()
        self._said = queue.SimpleQueue[Event]()
        self._num_said = self._num_told = 0
        self._given: set[int] = set()
        self._done: dict[int, PartDone] = {}
        self._error: BonError | None = None
        self._changed, self._hurry = threading.Condition(), threading.Event()
        context = ray.get_runtime_context()
        self._is_again = bool(context.was_current_actor_reconstructed)
        self._node = ray.util.get_node_ip_address()
        self._is_away = context.get_node_id() != settings.home
        try:
            self._begin(settings, context.get_actor_id())
        except Exception as error:
            self._fail(error)  # raised, the run would hear of an actor that died

    def _begin(self, settings: LaneSettings, actor_id: str) -> None:
        import ray

        settings.origin.enter()
        self._number = ray.get(self._hub.begin.remote(actor_id, self._node))
        engine = LocalEngine(
            _log_of(settings.log, self._number),
            settings.max_restarts,
            settings.stall_timeout_s,
            settings.load_timeout_s,
        )
        # the kernel ends a model's process with the thread that started it, so this one lasts
        self._thread = threading.Thread(target=self._run, args=(engine,), daemon=True)
        self._thread.start()
        threading.Thread(target=self._tell, daemon=True).start()

    def do(self, block: pa.Table) -> pa.Table:
        try:
            return self._do(block)
        except Exception as error:
            return error_row(self._fail(error))  # raised, Ray would wrap it

    def _do(self, block: pa.Table) -> pa.Table:
        (row,) = block.to_pylist()
        if row["error"] is not None:
            return block  # a stage before has failed, which ends all
        mine = [one for one in row["parts"] if one["stage"] == self._stage]
        parts = [one["part"] for one in mine]
        new = [part for part in parts if part not in self._given]
        for part in new:
            self._given.add(part)
            before = self._done_before(part)
            if before is None:
                self._feed.put(part)
            else:
                self._done[part] = before
        with self._changed:
            for part in parts:
                while self._error is None and part not in self._done:
                    self._changed.wait()
            self._hurry.set()
            num_said = self._num_said  # by now: others go on, so it may never all be told
            while self._error is None and self._num_told < num_said:
                self._changed.wait()
            if self._error is not None:
                raise self._error
        for one in mine:
            one["drops"] = json.dumps(dict(self._done[one["part"]].drops))
        return pa.Table.from_pylist([row], ROWS)

    def end(self) -> None:
        """Give no more parts, and wait for the model's process to end."""
        self._feed.put(None)
        if self._error is None:
            self._thread.join(_END_TIMEOUT_S)

    def _done_before(self, part: int) -> PartDone | None:
        """Return how a part was done by this worker before it was lost; none where it was not."""
        if self._is_again and isinstance(self._work, KnowsDone):
            return self._work.done(part)
        return None

    def _run(self, engine: LocalEngine) -> None:
        try:
            for event in engine.run(self._work, self._parts()):
                self._said.put(event)
                with self._changed:
                    self._num_said += 1
                    if isinstance(event, PartDone):
                        self._done[event.part] = event
                        self._changed.notify_all()
        except Exception as error:
            self._fail(error)

    def _parts(self) -> Iterator[int | None]:
        """Yield what was fed, and none where there is nothing for now."""
        while True:
            try:
                part = self._feed.get_nowait()
            except queue.Empty:
                yield None
                continue
            if part is None:
                return
            yield part

    def _fail(self, error: Exception) -> BonError:
        """Have all that wait end with the first error; return that one."""
        with self._changed:
            if self._error is None:
                self._error = _as_ours(error)
                if self._is_away:
                    _add_node(self._error, self._node)
            self._changed.notify_all()
            return self._error

    def _tell(self) -> None:
        try:
            while True:
                self._tell_some()
        except Exception as error:
            self._fail(error)  # else a block would wait for what is never told

    def _tell_some(self) -> None:
        import ray

        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            events.append(self._said.get(timeout=_SPEAKS_EVERY_S))
            self._hurry.wait(_GATHER_S)
            self._hurry.clear()
            while True:
                events.append(self._said.get_nowait())
        said = Said(self._number, tuple(_merged(events)))
        with contextlib.suppress(ray.exceptions.RayError):  # the driver is gone, as this is soon
            ray.get(self._hub.tell.remote(said))
        with self._changed:
            self._num_told += len(events)
            self._changed.notify_all()


def _merged(events: Iterable[Event]) -> list[Event]:
    """Return the events with what was computed in between as one event each."""
    result: list[Event] = []
    for event in events:
        if result and isinstance(event, Progress) and isinstance(result[-1], Progress):
            result[-1] = _sum(result[-1], event)
        else:
            result.append(event)
    return result


def _sum(first: Progress, second: Progress) -> Progress:
    return Progress(
        first.num_prompts + second.num_prompts,
        first.num_candidates + second.num_candidates,
        first.num_tokens + second.num_tokens,
        first.num_tokens_computed + second.num_tokens_computed,
        second.halved_batch_tokens or first.halved_batch_tokens,
        dict(Counter(first.retries) + Counter(second.retries)),
    )


def _log_of(log: Path | None, number: int) -> Path:
    """Return where a worker's model prints: beside the first one's, or to a temporary file where
    that folder is not on this node."""
    if log is None or not log.parent.is_dir():
        log = Path(tempfile.mkdtemp(prefix="bon-")) / "worker.log"
    return log if number == 0 else log.with_stem(f"{log.stem}-{number}")


def _as_ours(error: Exception) -> BonError:
    if isinstance(error, BonError):
        return error
    said = f"a worker failed: {type(error).__name__}: {error}".rstrip(": ")
    return EngineError(said, why="this is a bug in bon")


def _add_node(error: BonError, node: str) -> None:
    """Say where an error was: its paths are that node's, and often so is the cause."""
    error.where = f"{error.where}, on node {node}" if error.where else f"node {node}"
    if isinstance(error, FileNotFoundError):
        same = "every node must see it under the same path, as in a shared folder"
        if isinstance(error, PoolNotFoundError):
            error.next_step = f"{same}, or give a --pool in an object store"
        else:
            error.next_step = "; ".join(filter(None, (same, error.next_step)))
